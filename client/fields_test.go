package client_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// Every refusal of bad input names the field of the request that is at fault, by its whole path.
func TestRefusedFields(t *testing.T) {
	c := administrator(t.Context())
	defer c.Close()
	ctx := t.Context()
	const bad = "Not/A name"
	read := &ententev1.ReadOptions{Consistency: 9}
	access, domains, federation := c.Access(), c.Domains(), c.Federation()
	cluster, routing, bundles, svids := c.Cluster(), c.Routing(), c.Bundles(), c.SVIDs()

	grant := func(field string, change func(*ententev1.Grant)) (string, error) {
		g := &ententev1.Grant{Role: ententev1.Role_ROLE_ISSUER, SpiffeId: "spiffe://dev.example.org/ci"}
		change(g)
		_, err := access.GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: g})
		return "grant." + field, err
	}
	instance := func(field string, change func(*ententev1.Instance)) (string, error) {
		i := &ententev1.Instance{
			Service: "web", Address: "10.0.0.1:443", SpiffeId: "spiffe://dev.example.org/web",
			Locality: &ententev1.Locality{Region: "r", Zone: "z"},
		}
		change(i)
		_, err := routing.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		return "instance." + field, err
	}
	rule := func(field string, r *ententev1.RoutingRule) (string, error) {
		_, err := routing.PutRules(ctx, &ententev1.PutRulesRequest{Rules: []*ententev1.RoutingRule{r}})
		return "rules[0]" + field, err
	}
	export := func(field string, change func(*ententev1.ServiceExport)) (string, error) {
		e := &ententev1.ServiceExport{Service: "web", To: "us.example.org"}
		change(e)
		_, err := routing.ExportService(ctx, &ententev1.ExportServiceRequest{Export: e})
		return "export." + field, err
	}
	imported := func(field string, i *ententev1.ServiceImport) (string, error) {
		_, err := routing.ImportService(ctx, &ententev1.ImportServiceRequest{Import: i})
		return "import." + field, err
	}
	number := func(n uint32) *uint32 { return &n }
	of := func(field string) func(_ any, err error) (string, error) {
		return func(_ any, err error) (string, error) { return field, err }
	}
	for _, call := range []func() (string, error){
		func() (string, error) { return grant("role", func(g *ententev1.Grant) { g.Role = 99 }) },
		func() (string, error) { return grant("spiffe_id", func(g *ententev1.Grant) { g.SpiffeId = bad }) },
		func() (string, error) { return grant("trust_domain", func(g *ententev1.Grant) { g.TrustDomain = bad }) },
		func() (string, error) { return grant("path_prefix", func(g *ententev1.Grant) { g.PathPrefix = bad }) },
		func() (string, error) {
			return grant("dns_names", func(g *ententev1.Grant) { g.DnsNames = []string{bad} })
		},
		func() (string, error) {
			return grant("may_issue", func(g *ententev1.Grant) { g.MayIssue = []ententev1.Role{99} })
		},
		func() (string, error) {
			return grant("services", func(g *ententev1.Grant) { g.Services = []string{"a"} })
		},
		func() (string, error) {
			return of("spiffe_id")(access.RevokeRole(ctx, &ententev1.RevokeRoleRequest{Role: 1, SpiffeId: bad}))
		},
		func() (string, error) {
			return of("spiffe_id")(access.GetGrant(ctx, &ententev1.GetGrantRequest{Role: 1, SpiffeId: bad}))
		},
		func() (string, error) {
			return of("read.consistency")(access.ListGrants(ctx, &ententev1.ListGrantsRequest{Read: read}))
		},

		func() (string, error) {
			return of("domain.trust_domain")(domains.CreateDomain(ctx,
				&ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: bad}}))
		},
		func() (string, error) {
			return of("domain.trust_domain")(domains.CreateDomain(ctx,
				&ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: "a..b"}}))
		},
		func() (string, error) {
			return of("domain.ca_ttl")(domains.CreateDomain(ctx, &ententev1.CreateDomainRequest{
				Domain: &ententev1.Domain{TrustDomain: "f.example.org", CaTtl: durationpb.New(1)},
			}))
		},
		func() (string, error) {
			return of("domain.endpoint_host")(domains.CreateDomain(ctx, &ententev1.CreateDomainRequest{
				Domain: &ententev1.Domain{TrustDomain: "f.example.org", EndpointHost: bad},
			}))
		},
		func() (string, error) {
			return of("trust_domain")(domains.GetDomain(ctx, &ententev1.GetDomainRequest{TrustDomain: bad}))
		},
		func() (string, error) {
			return of("update_mask")(domains.UpdateDomain(ctx, &ententev1.UpdateDomainRequest{
				Domain:     &ententev1.Domain{TrustDomain: "dev.example.org"},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"revision"}},
			}))
		},
		func() (string, error) {
			return of("trust_domain")(domains.DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: bad}))
		},

		func() (string, error) {
			return of("relationship.trust_domain")(federation.CreateRelationship(ctx,
				&ententev1.CreateRelationshipRequest{Relationship: &ententev1.Relationship{TrustDomain: bad}}))
		},
		func() (string, error) {
			r := webRelationship("f.example.com", false)
			r.Url = bad
			return of("relationship.url")(federation.CreateRelationship(ctx,
				&ententev1.CreateRelationshipRequest{Relationship: r}))
		},
		func() (string, error) {
			return of("bootstrap_bundle")(federation.CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
				Relationship: webRelationship("f.example.com", false), BootstrapBundle: []byte("{"),
			}))
		},
		func() (string, error) {
			return of("page_size")(federation.ListRelationships(ctx,
				&ententev1.ListRelationshipsRequest{PageSize: -1}))
		},
		func() (string, error) {
			return of("foreign_trust_domain")(federation.CreateInvitation(ctx, &ententev1.CreateInvitationRequest{
				TrustDomain: "dev.example.org", ForeignTrustDomain: bad,
			}))
		},
		func() (string, error) {
			return of("ttl")(federation.CreateInvitation(ctx, &ententev1.CreateInvitationRequest{
				TrustDomain: "dev.example.org", ForeignTrustDomain: "f.example.com",
				Ttl: &durationpb.Duration{Seconds: math.MaxInt64},
			}))
		},
		func() (string, error) {
			return of("id")(federation.GetInvitation(ctx, &ententev1.GetInvitationRequest{Id: bad}))
		},
		func() (string, error) {
			return of("token")(federation.RedeemInvitation(ctx, &ententev1.RedeemInvitationRequest{Token: bad}))
		},

		func() (string, error) {
			return of("member_id")(cluster.CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{MemberId: bad}))
		},
		func() (string, error) {
			return of("ttl")(cluster.CreateJoinToken(ctx,
				&ententev1.CreateJoinTokenRequest{MemberId: "f", Ttl: durationpb.New(1)}))
		},
		func() (string, error) {
			return of("member_id")(cluster.RevokeJoinToken(ctx, &ententev1.RevokeJoinTokenRequest{MemberId: bad}))
		},
		func() (string, error) {
			return of("id")(cluster.RemoveMember(ctx, &ententev1.RemoveMemberRequest{Id: bad}))
		},
		func() (string, error) {
			return of("id")(cluster.ApproveMember(ctx, &ententev1.ApproveMemberRequest{Id: bad}))
		},
		func() (string, error) {
			return of("identity")(cluster.ApproveMember(ctx,
				&ententev1.ApproveMemberRequest{Id: "f", Identity: bad}))
		},

		func() (string, error) { return instance("service", func(i *ententev1.Instance) { i.Service = bad }) },
		func() (string, error) { return instance("address", func(i *ententev1.Instance) { i.Address = bad }) },
		func() (string, error) { return instance("locality", func(i *ententev1.Instance) { i.Locality = nil }) },
		func() (string, error) {
			return instance("locality.zone", func(i *ententev1.Instance) { i.Locality.Zone = "" })
		},
		func() (string, error) { return instance("spiffe_id", func(i *ententev1.Instance) { i.SpiffeId = bad }) },
		func() (string, error) {
			return instance("spiffe_id", func(i *ententev1.Instance) { i.SpiffeId = "spiffe://dev.example.org" })
		},
		func() (string, error) { return instance("weight", func(i *ententev1.Instance) { i.Weight = 1 << 30 }) },
		func() (string, error) { return instance("health", func(i *ententev1.Instance) { i.Health = 99 }) },
		func() (string, error) {
			return of("address")(routing.DeregisterInstance(ctx,
				&ententev1.DeregisterInstanceRequest{Service: "web", Address: bad}))
		},
		func() (string, error) {
			return of("name")(routing.GetService(ctx, &ententev1.GetServiceRequest{Name: bad}))
		},
		func() (string, error) {
			return of("read.consistency")(routing.ListServices(ctx, &ententev1.ListServicesRequest{Read: read}))
		},
		func() (string, error) {
			return of("service")(routing.GetHint(ctx, &ententev1.GetHintRequest{Service: bad}))
		},
		func() (string, error) {
			return of("locality")(routing.GetHint(ctx, &ententev1.GetHintRequest{Service: "web"}))
		},
		func() (string, error) {
			return of("rules")(routing.PutRules(ctx, &ententev1.PutRulesRequest{}))
		},
		func() (string, error) { return rule(".service", &ententev1.RoutingRule{Service: bad}) },
		func() (string, error) {
			return rule(".panic_threshold", &ententev1.RoutingRule{Service: "web", PanicThreshold: number(101)})
		},
		func() (string, error) {
			return rule(".overprovisioning_factor",
				&ententev1.RoutingRule{Service: "web", OverprovisioningFactor: number(0)})
		},
		func() (string, error) {
			return rule(".distribution[0].to", &ententev1.RoutingRule{Service: "web",
				Distribution: []*ententev1.DistributionRule{{From: "a", To: map[string]uint32{"b": 101}}}})
		},
		func() (string, error) { return rule("", &ententev1.RoutingRule{Service: "web"}) },
		func() (string, error) { return export("service", func(e *ententev1.ServiceExport) { e.Service = bad }) },
		func() (string, error) { return export("name", func(e *ententev1.ServiceExport) { e.Name = bad }) },
		func() (string, error) { return export("to", func(e *ententev1.ServiceExport) { e.To = bad }) },
		func() (string, error) {
			return export("localities[1]", func(e *ententev1.ServiceExport) { e.Localities = []string{"a", "/"} })
		},
		func() (string, error) {
			return export("trust_domain", func(e *ententev1.ServiceExport) { e.TrustDomain = bad })
		},
		func() (string, error) {
			return export("path_prefix", func(e *ententev1.ServiceExport) { e.PathPrefix = bad })
		},
		func() (string, error) { return imported("name", &ententev1.ServiceImport{Name: bad}) },
		func() (string, error) { return imported("service", &ententev1.ServiceImport{Name: "a", Service: bad}) },
		func() (string, error) { return imported("from", &ententev1.ServiceImport{Name: "a", From: bad}) },
		func() (string, error) {
			return of("to")(routing.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: "a", To: bad}))
		},
		func() (string, error) {
			return of("from")(routing.UnimportService(ctx,
				&ententev1.UnimportServiceRequest{Service: "a", From: bad}))
		},

		func() (string, error) {
			return of("trust_domain")(bundles.GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: bad}))
		},
		func() (string, error) {
			return of("page_size")(bundles.ListBundles(ctx, &ententev1.ListBundlesRequest{PageSize: -1}))
		},
		func() (string, error) {
			return of("read.consistency")(bundles.ListBundles(ctx, &ententev1.ListBundlesRequest{Read: read}))
		},
		func() (string, error) {
			return of("limit")(bundles.GetBundleHistory(ctx, &ententev1.GetBundleHistoryRequest{Limit: -1}))
		},
		func() (string, error) {
			return of("csr")(svids.IssueX509SVID(ctx,
				&ententev1.IssueX509SVIDRequest{SpiffeId: "spiffe://dev.example.org/web", Csr: []byte("x")}))
		},
		func() (string, error) {
			return of("audience")(svids.IssueJWTSVID(ctx,
				&ententev1.IssueJWTSVIDRequest{SpiffeId: "spiffe://dev.example.org/web"}))
		},
		func() (string, error) {
			return of("ttl")(svids.IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{
				SpiffeId: "spiffe://dev.example.org/web", Audience: []string{"a"}, Ttl: durationpb.New(1),
			}))
		},
		func() (string, error) {
			return of("requests")(svids.IssueX509SVIDs(ctx,
				&ententev1.IssueX509SVIDsRequest{TrustDomain: "dev.example.org"}))
		},
		func() (string, error) {
			stream, err := routing.ReplaceInstances(ctx)
			require.NoError(t, err)
			require.NoError(t, stream.Send(&ententev1.ReplaceInstancesRequest{
				Target:    &ententev1.ReplaceTarget{Service: "web"},
				Instances: []*ententev1.Instance{{Service: "web", Address: bad}},
			}))
			return of("instances[0].address")(stream.CloseAndRecv())
		},
	} {
		want, err := call()
		if !assert.ErrorIs(t, err, client.ErrInvalidArgument, want) {
			continue
		}
		var refused *client.Error
		require.ErrorAs(t, err, &refused, want)
		assert.Equal(t, want, refused.Field(), err.Error())
	}
}
