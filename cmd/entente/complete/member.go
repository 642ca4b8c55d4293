package complete

import (
	"context"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// stale reads the state of the member itself, so that there are values without a leader too.
var stale = &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE}

// listing returns the source of what one call lists.
func listing[R, T any](
	call func(context.Context, *cli.Member) (R, error), items func(R) []T, value func(T) cobra.Completion,
) source {
	return fromMember(func(ctx context.Context, member *cli.Member, _ []string) ([]cobra.Completion, error) {
		list, err := call(ctx, member)
		if err != nil {
			return nil, err
		}
		return valuesOf(items(list), value), nil
	})
}

func valuesOf[T any](items []T, value func(T) cobra.Completion) (out []cobra.Completion) {
	for _, i := range items {
		out = append(out, value(i))
	}
	return out
}

var domains = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListDomainsResponse, error) {
		return m.Domains().ListDomains(ctx, &ententev1.ListDomainsRequest{Read: stale})
	},
	(*ententev1.ListDomainsResponse).GetDomains,
	func(d *ententev1.Domain) cobra.Completion { return d.GetTrustDomain() },
)

var bundles = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListBundlesResponse, error) {
		all := &ententev1.ListBundlesResponse{}
		for request := (&ententev1.ListBundlesRequest{Read: stale}); ; {
			page, err := m.Bundles().ListBundles(ctx, request)
			if err != nil {
				return nil, err
			}
			all.Bundles = append(all.Bundles, page.GetBundles()...)
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return all, nil
			}
		}
	},
	(*ententev1.ListBundlesResponse).GetBundles,
	func(b *ententev1.Bundle) cobra.Completion {
		return described(b.GetTrustDomain(), cli.EnumName(b.GetFreshness()))
	},
)

var relationships = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListRelationshipsResponse, error) {
		all := &ententev1.ListRelationshipsResponse{}
		for request := (&ententev1.ListRelationshipsRequest{Read: stale}); ; {
			page, err := m.Federation().ListRelationships(ctx, request)
			if err != nil {
				return nil, err
			}
			all.Relationships = append(all.Relationships, page.GetRelationships()...)
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return all, nil
			}
		}
	},
	(*ententev1.ListRelationshipsResponse).GetRelationships,
	func(r *ententev1.Relationship) cobra.Completion {
		return described(r.GetTrustDomain(), cli.EnumName(r.GetState()), cli.EnumName(r.GetFreshness()))
	},
)

func listMembers(ctx context.Context, m *cli.Member) (*ententev1.ListMembersResponse, error) {
	return m.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{Read: stale})
}

func memberID(m *ententev1.Member) cobra.Completion { return described(m.GetId(), m.GetZone()) }

var (
	members         = listing(listMembers, (*ententev1.ListMembersResponse).GetMembers, memberID)
	joiners         = listing(listMembers, (*ententev1.ListMembersResponse).GetAwaitingApproval, memberID)
	memberAddresses = listing(listMembers, (*ententev1.ListMembersResponse).GetMembers,
		func(m *ententev1.Member) cobra.Completion { return described(m.GetAddress(), m.GetId()) })
)

var tokens = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListJoinTokensResponse, error) {
		return m.Cluster().ListJoinTokens(ctx, &ententev1.ListJoinTokensRequest{Read: stale})
	},
	(*ententev1.ListJoinTokensResponse).GetJoinTokens,
	func(t *ententev1.JoinToken) cobra.Completion { return t.GetMemberId() },
)

var agentTokens = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListAgentTokensResponse, error) {
		return m.Agents().ListAgentTokens(ctx, &ententev1.ListAgentTokensRequest{Read: stale})
	},
	(*ententev1.ListAgentTokensResponse).GetAgentTokens,
	func(t *ententev1.AgentToken) cobra.Completion { return t.GetAgent() },
)

var agents = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListAgentsResponse, error) {
		return m.Agents().ListAgents(ctx, &ententev1.ListAgentsRequest{Read: stale})
	},
	(*ententev1.ListAgentsResponse).GetAgents,
	func(a *ententev1.Agent) cobra.Completion { return described(a.GetName(), cli.EnumName(a.GetState())) },
)

var entries = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListEntriesResponse, error) {
		return m.Entries().ListEntries(ctx, &ententev1.ListEntriesRequest{Read: stale})
	},
	(*ententev1.ListEntriesResponse).GetEntries,
	func(e *ententev1.Entry) cobra.Completion { return described(e.GetId(), e.GetSpiffeId(), e.GetAgent()) },
)

func listAuthorities(ctx context.Context, m *cli.Member) (*ententev1.ListAuthoritiesResponse, error) {
	return m.Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{Read: stale})
}

var authorities = listing(listAuthorities, (*ententev1.ListAuthoritiesResponse).GetAuthorities,
	func(a *ententev1.Authority) cobra.Completion {
		return described(
			a.GetId(), a.GetTrustDomain(), a.GetMember(), cli.EnumName(a.GetKind()), cli.EnumName(a.GetState()),
		)
	})

func listAnchors(ctx context.Context, m *cli.Member) (*ententev1.ListAnchorsResponse, error) {
	return m.Authorities().ListAnchors(ctx, &ententev1.ListAnchorsRequest{Read: stale})
}

func anchorKey(a *ententev1.Anchor) cobra.Completion {
	return described(a.GetKeyId(), a.GetTrustDomain(), cli.EnumName(a.GetState()), a.GetSubject())
}

var (
	anchors        = listing(listAnchors, (*ententev1.ListAnchorsResponse).GetAnchors, anchorKey)
	pendingAnchors = listing(listAnchors, func(r *ententev1.ListAnchorsResponse) (out []*ententev1.Anchor) {
		for _, a := range r.GetAnchors() {
			if a.GetState() == ententev1.AnchorState_ANCHOR_STATE_PENDING {
				out = append(out, a)
			}
		}
		return out
	}, anchorKey)
)

// authoritiesAndAnchors is for 'authority show'.
func authoritiesAndAnchors(env *cli.Env) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		a, directive := authorities(env)(cmd, args, begin)
		b, _ := anchors(env)(cmd, args, begin)
		return append(a, b...), directive
	}
}

func listServices(ctx context.Context, m *cli.Member) (*ententev1.ListServicesResponse, error) {
	return m.Routing().ListServices(ctx, &ententev1.ListServicesRequest{Read: stale})
}

var (
	services = listing(listServices, (*ententev1.ListServicesResponse).GetServices,
		func(s *ententev1.Service) cobra.Completion { return s.GetName() })
	localities = listing(listServices, func(r *ententev1.ListServicesResponse) (out []*ententev1.Locality) {
		for _, s := range r.GetServices() {
			for _, i := range s.GetInstances() {
				out = append(out, i.GetLocality())
			}
		}
		return out
	}, cli.Locality)
	// endpoints are those of the service that is the first argument.
	endpoints = fromMember(func(ctx context.Context, m *cli.Member, args []string) ([]cobra.Completion, error) {
		if len(args) == 0 {
			return nil, nil
		}
		s, err := m.Routing().GetService(ctx, &ententev1.GetServiceRequest{Name: args[0]})
		return valuesOf(s.GetInstances(), func(i *ententev1.Instance) cobra.Completion {
			return described(i.GetAddress(), cli.Locality(i.GetLocality()), cli.EnumName(i.GetHealth()))
		}), err
	})
)

var leases = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListLeasesResponse, error) {
		return m.Routing().ListLeases(ctx, &ententev1.ListLeasesRequest{Read: stale})
	},
	(*ententev1.ListLeasesResponse).GetLeases,
	func(l *ententev1.Lease) cobra.Completion { return described(l.GetId(), l.GetOwner()) },
)

var rules = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListRulesResponse, error) {
		return m.Routing().ListRules(ctx, &ententev1.ListRulesRequest{Read: stale})
	},
	(*ententev1.ListRulesResponse).GetRules,
	func(r *ententev1.RoutingRule) cobra.Completion { return r.GetService() },
)

var exports = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListServiceExportsResponse, error) {
		return m.Routing().ListServiceExports(ctx, &ententev1.ListServiceExportsRequest{Read: stale})
	},
	(*ententev1.ListServiceExportsResponse).GetExports,
	func(e *ententev1.ServiceExport) cobra.Completion { return described(e.GetName(), "to "+e.GetTo()) },
)

var imports = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListServiceImportsResponse, error) {
		return m.Routing().ListServiceImports(ctx, &ententev1.ListServiceImportsRequest{Read: stale})
	},
	(*ententev1.ListServiceImportsResponse).GetImports,
	func(i *ententev1.ServiceImport) cobra.Completion {
		return described(i.GetService(), "from "+i.GetFrom())
	},
)

var invitations = listing(
	func(ctx context.Context, m *cli.Member) (*ententev1.ListInvitationsResponse, error) {
		return m.Federation().ListInvitations(ctx, &ententev1.ListInvitationsRequest{Read: stale})
	},
	(*ententev1.ListInvitationsResponse).GetInvitations,
	func(i *ententev1.Invitation) cobra.Completion {
		return described(i.GetId(), "for "+i.GetForeignTrustDomain(), cli.EnumName(i.GetState()))
	},
)

func listGrants(ctx context.Context, m *cli.Member) (*ententev1.ListGrantsResponse, error) {
	return m.Access().ListGrants(ctx, &ententev1.ListGrantsRequest{Read: stale})
}

var (
	callers = listing(listGrants, (*ententev1.ListGrantsResponse).GetGrants,
		func(g *ententev1.Grant) cobra.Completion {
			return described(g.GetSpiffeId(), cli.EnumName(g.GetRole()))
		})
	reservedServices = listing(listGrants, (*ententev1.ListGrantsResponse).GetReservedServices,
		func(name string) cobra.Completion { return name })
)
