package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

var accessGrant = kind[*ententev1.Grant]{
	name: "access_grant",
	text: "A role that a SPIFFE ID has, in one trust domain or in all. A grant has no update: a change replaces it.",
	key:  []string{"role", "spiffe_id", "trust_domain", "path_prefix"},
	attributes: []attribute{
		{name: "role", mode: required, replaces: true, text: "The role."},
		{name: "spiffe_id", mode: required, replaces: true, checks: []validator.String{spiffeID},
			text: "Who has the role."},
		{name: "trust_domain", mode: optional, replaces: true, checks: []validator.String{trustDomainName},
			text: "The trust domain in which the role counts. Default: every domain."},
		{name: "path_prefix", mode: optional, replaces: true,
			text: "`issuer` and `discovery`: the path of SPIFFE IDs starts with these whole segments. Default: any."},
		{name: "dns_names", mode: optional, replaces: true,
			text: "`issuer`: the DNS names that X509-SVIDs may contain."},
		{name: "may_issue", mode: optional, replaces: true,
			text: "`issuer`: roles whose holders' SPIFFE IDs it may issue SVIDs for."},
		{name: "services", mode: optional, replaces: true, text: "`discovery`: the services that the caller owns."},
		{name: "create_time", mode: computed, text: "When it was granted."},
	},
	list: grants,
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.Grant, _ given) (
		*ententev1.Grant, []string, error,
	) {
		made, err := c.Access().GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: wanted})
		return made, made.GetWarnings(), err
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.Grant) (*ententev1.Grant, error) {
		if key.GetCreateTime() != nil { // otherwise it is imported, and the ID has not all of its fields
			return c.Access().GetGrant(ctx, &ententev1.GetGrantRequest{
				Role: key.GetRole(), SpiffeId: key.GetSpiffeId(), TrustDomain: key.GetTrustDomain(),
				PathPrefix: key.GetPathPrefix(), DnsNames: key.GetDnsNames(), MayIssue: key.GetMayIssue(),
				Services: key.GetServices(),
			})
		}
		all, err := c.Access().ListGrants(ctx, &ententev1.ListGrantsRequest{})
		if err != nil {
			return nil, err
		}
		for _, g := range all.GetGrants() {
			if proto.Equal(grantKey(g, key), grantKey(key, key)) {
				return g, nil
			}
		}
		return nil, client.ErrNotFound
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.Grant, etag string) error {
		_, err := c.Access().RevokeRole(ctx, &ententev1.RevokeRoleRequest{
			Role: stored.GetRole(), SpiffeId: stored.GetSpiffeId(), TrustDomain: stored.GetTrustDomain(),
			PathPrefix: stored.GetPathPrefix(), DnsNames: stored.GetDnsNames(), MayIssue: stored.GetMayIssue(),
			Services: stored.GetServices(), Etag: etag,
		})
		return err
	},
}

// grantKey returns what identifies a grant: all that a client sets. An import has only what is in the ID, and is
// recognized by the missing time.
func grantKey(g, of *ententev1.Grant) *ententev1.Grant {
	key := &ententev1.Grant{
		Role: g.GetRole(), SpiffeId: g.GetSpiffeId(), TrustDomain: g.GetTrustDomain(), PathPrefix: g.GetPathPrefix(),
	}
	if of.GetCreateTime() != nil {
		key.DnsNames, key.MayIssue, key.Services = g.GetDnsNames(), g.GetMayIssue(), g.GetServices()
	}
	return key
}
