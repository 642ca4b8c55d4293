package provider

import (
	"context"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/schema/validator"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/routing/plan"
)

var routingRule = kind[*ententev1.RoutingRule]{
	name: "routing_rule",
	text: "How the hints of one service, or of all services without a rule of their own, divide the load. What a " +
		"rule leaves out comes from the rule for all, or from the cluster's configuration.",
	key: []string{"service"},
	attributes: []attribute{
		{name: "service", mode: required, replaces: true, text: "The service, or `*` for all."},
		{name: "overprovisioning_factor", mode: optional,
			text: "100 to 10000 percent. Excludes `failover_threshold`."},
		{name: "failover_threshold", mode: optional,
			text: "1 to 100 percent: the share of healthy instances below which load moves to the next priority."},
		{name: "panic_threshold", mode: optional, text: "0 to 100 percent; 0 disables panic."},
		{name: "stale", mode: optional,
			text: "What happens to instances whose bundle is stale: `demote`, `keep` or `drop`."},
		{name: "failover", mode: optional, text: "The order of the other regions for callers in one region.",
			parts: []attribute{
				{name: "from", mode: required, text: "The callers' region."},
				{name: "to", mode: required, text: "The other regions, the next one first."},
			}},
		{name: "distribution", mode: optional, text: "How the load of the callers in a place is split.",
			parts: []attribute{
				{name: "from", mode: required, text: "The callers' region, or REGION/ZONE."},
				{name: "to", mode: required, text: "Percentages by place, which add up to 100."},
			}},
	},
	valid: func(wanted *ententev1.RoutingRule) error {
		_, err := plan.ParseRule(wanted)
		return err
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.RoutingRule, _ given) (
		*ententev1.RoutingRule, []string, error,
	) {
		wanted.Etag = absent
		return putRule(ctx, c, wanted)
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.RoutingRule) (*ententev1.RoutingRule, error) {
		return c.Routing().GetRule(ctx, &ententev1.GetRuleRequest{Service: key.GetService()})
	},
	update: func(ctx context.Context, c *client.Client, wanted *ententev1.RoutingRule, _ []string, g given) (
		*ententev1.RoutingRule, []string, error,
	) {
		wanted.Etag = g.etag
		return putRule(ctx, c, wanted)
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.RoutingRule, etag string) error {
		_, err := c.Routing().DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: stored.GetService(), Etag: etag})
		return err
	},
}

// absent is the etag with which a call makes what does not exist, and replaces nothing.
const absent = "0"

func putRule(ctx context.Context, c *client.Client, rule *ententev1.RoutingRule) (
	*ententev1.RoutingRule, []string, error,
) {
	put, err := c.Routing().PutRules(ctx, &ententev1.PutRulesRequest{Rules: []*ententev1.RoutingRule{rule}})
	if err != nil {
		return nil, nil, err
	}
	return put.GetRules()[0], put.GetWarnings(), nil
}

var serviceExport = kind[*ententev1.ServiceExport]{
	name: "service_export",
	text: "A service that is offered to the cluster of a foreign trust domain, which decides what it imports.",
	key:  []string{"name", "to"},
	attributes: []attribute{
		{name: "service", mode: required, checks: []validator.String{serviceName},
			text: "The name in this cluster."},
		{name: "to", mode: required, replaces: true, checks: []validator.String{trustDomainName},
			text: "The foreign trust domain, which must have a relationship."},
		{name: "name", mode: required, replaces: true, checks: []validator.String{serviceName},
			text: "The name in the other cluster."},
		{name: "localities", mode: optional, checks: []validator.String{place},
			text: "Selects instances in these places, `REGION[/ZONE[/SUB-ZONE]]`. Default: all."},
		{name: "trust_domain", mode: optional, checks: []validator.String{trustDomainName},
			text: "Selects instances of this hosted trust domain. Default: all."},
		{name: "path_prefix", mode: optional,
			text: "Selects instances whose SPIFFE IDs have this path prefix. Default: all."},
		{name: "create_time", mode: computed, text: "When it was created."},
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.ServiceExport, _ given) (
		*ententev1.ServiceExport, []string, error,
	) {
		made, err := c.Routing().ExportService(ctx, &ententev1.ExportServiceRequest{Export: wanted, Etag: absent})
		return made, nil, err
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.ServiceExport) (*ententev1.ServiceExport, error) {
		all, err := c.Routing().ListServiceExports(ctx, &ententev1.ListServiceExportsRequest{})
		if err != nil {
			return nil, err
		}
		for _, e := range all.GetExports() {
			if e.GetName() == key.GetName() && e.GetTo() == key.GetTo() {
				return e, nil
			}
		}
		return nil, client.ErrNotFound
	},
	update: func(ctx context.Context, c *client.Client, wanted *ententev1.ServiceExport, _ []string, g given) (
		*ententev1.ServiceExport, []string, error,
	) {
		is, err := c.Routing().ExportService(ctx, &ententev1.ExportServiceRequest{Export: wanted, Etag: g.etag})
		return is, nil, err
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.ServiceExport, etag string) error {
		_, err := c.Routing().UnexportService(ctx,
			&ententev1.UnexportServiceRequest{Name: stored.GetName(), To: stored.GetTo(), Etag: etag})
		return err
	},
}

var serviceImport = kind[*ententev1.ServiceImport]{
	name: "service_import",
	text: "A service whose instances are imported from the cluster of a foreign trust domain that exports it.",
	key:  []string{"service", "from"},
	attributes: []attribute{
		{name: "name", mode: required, replaces: true, checks: []validator.String{serviceName},
			text: "The name under which the other cluster exports it."},
		{name: "from", mode: required, replaces: true, checks: []validator.String{trustDomainName},
			text: "The foreign trust domain, which must have a relationship."},
		{name: "service", mode: required, replaces: true, checks: []validator.String{serviceName},
			text: "The service here to which the instances are added."},
		{name: "create_time", mode: computed, text: "When it was created."},
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.ServiceImport, _ given) (
		*ententev1.ServiceImport, []string, error,
	) {
		made, err := c.Routing().ImportService(ctx, &ententev1.ImportServiceRequest{Import: wanted, Etag: absent})
		return made, nil, err
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.ServiceImport) (*ententev1.ServiceImport, error) {
		all, err := c.Routing().ListServiceImports(ctx, &ententev1.ListServiceImportsRequest{})
		if err != nil {
			return nil, err
		}
		for _, i := range all.GetImports() {
			if i.GetService() == key.GetService() && i.GetFrom() == key.GetFrom() {
				return i, nil
			}
		}
		return nil, client.ErrNotFound
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.ServiceImport, etag string) error {
		_, err := c.Routing().UnimportService(ctx,
			&ententev1.UnimportServiceRequest{
				Service: stored.GetService(), From: stored.GetFrom(), Etag: etag,
			})
		return err
	},
}

// validInstance returns why the server refuses what an instance has besides its texts.
func validInstance(i *ententev1.Instance) error {
	if _, err := plan.LocalityFromProto(i.GetLocality()); err != nil {
		return apierror.InField("locality", err)
	}
	if i.GetWeight() > plan.MaxWeight {
		return apierror.InField("weight", fmt.Errorf("the weight is %d; 1 to %d are allowed", i.GetWeight(),
			plan.MaxWeight))
	}
	return nil
}

var serviceInstance = kind[*ententev1.Instance]{
	name: "service_instance",
	text: "One address of a service, registered until it is destroyed. Programs that come and go register under a " +
		"lease instead.",
	key: []string{"service", "address"},
	attributes: []attribute{
		{name: "service", mode: required, replaces: true, checks: []validator.String{serviceName},
			text: "The service."},
		{name: "address", mode: required, replaces: true, checks: []validator.String{address},
			text: "`IP:PORT`, with a literal IP address."},
		{name: "locality", mode: required, text: "Where it is.", parts: []attribute{
			{name: "region", mode: required, text: "The region."},
			{name: "zone", mode: required, text: "The zone."},
			{name: "sub_zone", mode: optional, text: "The part of the zone."},
		}},
		{name: "spiffe_id", mode: required, checks: []validator.String{spiffeID},
			text: "The SPIFFE ID that a caller must expect."},
		{name: "weight", mode: defaulted, text: "Its share among the instances of its locality. Default: 1."},
		{name: "health", mode: defaulted, text: "Its health. Default: `healthy`."},
	},
	valid: validInstance,
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.Instance, _ given) (
		*ententev1.Instance, []string, error,
	) {
		made, err := c.Routing().RegisterInstance(ctx,
			&ententev1.RegisterInstanceRequest{Instance: wanted, Etag: absent})
		return made, nil, err
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.Instance) (*ententev1.Instance, error) {
		service, err := c.Routing().GetService(ctx, &ententev1.GetServiceRequest{Name: key.GetService()})
		if err != nil {
			return nil, err
		}
		for _, i := range service.GetInstances() {
			if i.GetAddress() == key.GetAddress() && i.GetOrigin() == "" {
				return i, nil
			}
		}
		return nil, client.ErrNotFound
	},
	update: func(ctx context.Context, c *client.Client, wanted *ententev1.Instance, _ []string, g given) (
		*ententev1.Instance, []string, error,
	) {
		is, err := c.Routing().RegisterInstance(ctx,
			&ententev1.RegisterInstanceRequest{Instance: wanted, Etag: g.etag})
		return is, nil, err
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.Instance, etag string) error {
		_, err := c.Routing().DeregisterInstance(ctx,
			&ententev1.DeregisterInstanceRequest{
				Service: stored.GetService(), Address: stored.GetAddress(), Etag: etag,
			})
		return err
	},
}
