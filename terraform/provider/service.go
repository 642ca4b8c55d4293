package provider

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/apierror"
)

var service = kind[*ententev1.Service]{
	name: "service",
	text: "A service with all of its instances that have no lease. They are replaced together, so that callers see " +
		"either the earlier set or the new one; an instance that somebody else has added without a lease is removed. " +
		"Use `entente_service_instance` where several configurations add instances to one service; one service has " +
		"one or the other. Instances under a lease and imported ones are left alone.",
	key: []string{"name"},
	attributes: []attribute{
		{name: "name", mode: required, replaces: true, checks: []validator.String{serviceName},
			text: "The name of the service."},
		{name: "instances", mode: required, text: "The instances, at least one.", parts: []attribute{
			{name: "address", mode: required, checks: []validator.String{address},
				text: "`IP:PORT`, with a literal IP address."},
			{name: "locality", mode: required, text: "Where it is.", parts: []attribute{
				{name: "region", mode: required, text: "The region."},
				{name: "zone", mode: required, text: "The zone."},
				{name: "sub_zone", mode: optional, text: "The part of the zone."},
			}},
			{name: "spiffe_id", mode: required, checks: []validator.String{spiffeID},
				text: "The SPIFFE ID that a caller must expect."},
			{name: "weight", mode: optional, text: "Its share among the instances of its locality. Default: 1."},
			{name: "health", mode: optional, text: "Its health. Default: `healthy`."},
		}},
	},
	valid: func(wanted *ententev1.Service) error {
		addresses := map[string]bool{}
		for n, i := range wanted.GetInstances() {
			err := validInstance(i)
			if addresses[i.GetAddress()] {
				err = fmt.Errorf("the service has the address %s twice", i.GetAddress())
			}
			if err != nil {
				return apierror.InField(fmt.Sprintf("instances[%d]", n), err)
			}
			addresses[i.GetAddress()] = true
		}
		if len(addresses) == 0 {
			return apierror.InField("instances", errNoInstances)
		}
		return nil
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.Service, _ given) (
		*ententev1.Service, []string, error,
	) {
		if is, err := readService(ctx, c, wanted); err == nil {
			return nil, nil, fmt.Errorf("%s has %d instances without a lease: %w", is.GetName(), len(is.GetInstances()),
				client.ErrAlreadyExists)
		}
		is, err := replaceInstances(ctx, c, wanted, absent)
		return is, nil, err
	},
	list: services,
	read: readService,
	update: func(ctx context.Context, c *client.Client, wanted *ententev1.Service, _ []string, g given) (
		*ententev1.Service, []string, error,
	) {
		is, err := replaceInstances(ctx, c, wanted, g.etag)
		return is, nil, err
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.Service, etag string) error {
		return sendInstances(ctx, c, &ententev1.ReplaceTarget{Service: stored.GetName(), Etag: etag}, nil)
	},
}

var errNoInstances = errors.New("instances is empty: a service is its instances; name at least one, or remove the " +
	"resource")

// readService returns a service as key declares it: see [asDeclared].
func readService(ctx context.Context, c *client.Client, key *ententev1.Service) (*ententev1.Service, error) {
	is, err := c.Routing().GetService(ctx, &ententev1.GetServiceRequest{Name: key.GetName()})
	if err != nil {
		return nil, err
	}
	if is = asDeclared(is, key); len(is.GetInstances()) == 0 {
		return nil, client.ErrNotFound
	}
	return is, nil
}

// services returns all services that have instances without a lease.
func services(ctx context.Context, c *client.Client) iter.Seq2[*ententev1.Service, error] {
	return func(push func(*ententev1.Service, error) bool) {
		all, err := c.Routing().ListServices(ctx, &ententev1.ListServicesRequest{})
		if err != nil {
			push(nil, err)
			return
		}
		for _, is := range all.GetServices() {
			is = asDeclared(is, &ententev1.Service{Name: is.GetName()})
			if len(is.GetInstances()) > 0 && !push(is, nil) {
				return
			}
		}
	}
}

// asDeclared reduces a service to its instances that have no lease, those of key first and in their order. What key
// leaves to the server it leaves out again.
func asDeclared(is, key *ententev1.Service) *ententev1.Service {
	own := slices.DeleteFunc(is.GetInstances(), func(i *ententev1.Instance) bool {
		return i.GetOrigin() != "" || i.GetLease() != ""
	})
	place := func(i *ententev1.Instance) int {
		at := slices.IndexFunc(key.GetInstances(), func(wanted *ententev1.Instance) bool {
			return wanted.GetAddress() == i.GetAddress()
		})
		if at < 0 {
			return len(key.GetInstances())
		}
		return at
	}
	slices.SortStableFunc(own, func(a, b *ententev1.Instance) int { return place(a) - place(b) })
	for _, i := range own {
		wanted := &ententev1.Instance{}
		if at := place(i); at < len(key.GetInstances()) {
			wanted = key.GetInstances()[at]
		}
		if wanted.GetWeight() == 0 && i.GetWeight() == 1 {
			i.Weight = 0
		}
		if wanted.GetHealth() == ententev1.Health_HEALTH_UNSPECIFIED &&
			i.GetHealth() == ententev1.Health_HEALTH_HEALTHY {
			i.Health = ententev1.Health_HEALTH_UNSPECIFIED
		}
	}
	is.Instances = own
	return is
}

// replaceInstances replaces the instances of a service, and returns them as they are then.
func replaceInstances(
	ctx context.Context, c *client.Client, wanted *ententev1.Service, etag string,
) (*ententev1.Service, error) {
	if len(wanted.GetInstances()) == 0 {
		return nil, errNoInstances // it was not known when Terraform planned
	}
	var all []*ententev1.Instance
	for _, i := range wanted.GetInstances() {
		own := proto.CloneOf(i)
		own.Service = wanted.GetName()
		all = append(all, own)
	}
	target := &ententev1.ReplaceTarget{Service: wanted.GetName(), Etag: etag}
	if err := sendInstances(ctx, c, target, all); err != nil {
		return nil, err
	}
	return readService(ctx, c, wanted)
}

// partSize bounds the instances of one message.
const partSize = 1000

// sendInstances replaces the instances of a service that have no lease.
func sendInstances(
	ctx context.Context, c *client.Client, target *ententev1.ReplaceTarget, all []*ententev1.Instance,
) error {
	stream, err := c.Routing().ReplaceInstances(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&ententev1.ReplaceInstancesRequest{Target: target})
	for part := range slices.Chunk(all, partSize) {
		if err == nil {
			err = stream.Send(&ententev1.ReplaceInstancesRequest{Instances: part})
		}
	}
	// If a message could not be sent, the answer has the reason.
	if _, answered := stream.CloseAndRecv(); answered != nil {
		return answered
	}
	return err
}
