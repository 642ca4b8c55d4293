package access

import (
	"slices"
	"strings"

	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

// Sets of roles.
var (
	admins       = []grant.Role{grant.Admin}
	operators    = []grant.Role{grant.Operator, grant.Admin}
	readers      = []grant.Role{grant.Reader, grant.Operator, grant.Admin}
	issuers      = []grant.Role{grant.Issuer, grant.Admin}
	peers        = []grant.Role{grant.Peer, grant.Admin}
	registrars   = []grant.Role{grant.Discovery, grant.Operator, grant.Admin}
	discoverers  = []grant.Role{grant.Discovery, grant.Reader, grant.Operator, grant.Admin}
	entryReaders = []grant.Role{grant.Reader, grant.Issuer, grant.Operator, grant.Admin}
	everyRole    = []grant.Role{grant.Reader, grant.Discovery, grant.Issuer, grant.Peer, grant.Operator, grant.Admin}
)

// The methods of xDS, whose service is Envoy's.
const (
	aggregatedResources = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	aggregatedDeltas    = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
)

// rules holds every method that can be called on the API port and on the admin socket, by full method name. All others
// are denied. The services for members and joiners are absent on purpose: the port serves them under other protocols,
// which admit callers by other means.
var rules = map[string]Rule{
	// The members of the cluster, and its state as a whole.
	v1.ClusterService_ListMembers_FullMethodName:     {Roles: readers, Reach: Cluster, Audit: Unaudited},
	v1.ClusterService_GetAutopilot_FullMethodName:    {Roles: readers, Reach: Cluster, Audit: Unaudited},
	v1.ClusterService_UpdateAutopilot_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably},
	v1.ClusterService_RemoveMember_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: on(func(m *v1.RemoveMemberRequest) Target {
			if m.GetCompromised() { // it revokes grants, those of administrators too
				return Target{Roles: admins, Object: m.GetId() + " as compromised"}
			}
			return Target{Object: m.GetId()}
		})},
	v1.ClusterService_RepairMember_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.RepairMemberRequest).GetId)},
	v1.ClusterService_TransferLeadership_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.TransferLeadershipRequest).GetId)},
	// A member can propose any change, and its admin socket makes its host an administrator. Hence only an
	// administrator admits members.
	v1.ClusterService_CreateJoinToken_FullMethodName: {Roles: admins, Reach: Cluster, Audit: AuditedDurably,
		Target: named(func(m *v1.CreateJoinTokenRequest) string {
			if m.GetAutoApprove() {
				return m.GetMemberId() + " with automatic approval"
			}
			return m.GetMemberId()
		})},
	v1.ClusterService_ListJoinTokens_FullMethodName: {Roles: operators, Reach: Cluster, Audit: Unaudited},
	v1.ClusterService_RevokeJoinToken_FullMethodName: {Roles: admins, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.RevokeJoinTokenRequest).GetMemberId)},
	v1.ClusterService_ApproveMember_FullMethodName: {Roles: admins, Reach: Cluster, Audit: AuditedDurably,
		Target: named(func(m *v1.ApproveMemberRequest) string {
			if m.GetIdentity() != "" {
				return m.GetId() + " with identity key " + m.GetIdentity()
			}
			return m.GetId()
		})},
	// A snapshot holds everything but private keys.
	v1.ClusterService_SaveSnapshot_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably},
	// A snapshot holds the grants too: a caller that restores one can make itself an administrator.
	v1.ClusterService_RestoreSnapshot_FullMethodName: {Roles: admins, Reach: Cluster, Audit: AuditedDurably},

	// Hosted domains. No grant can be for a domain that does not exist yet. The roles that create domains delete them.
	v1.DomainService_CreateDomain_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named(func(m *v1.CreateDomainRequest) string { return m.GetDomain().GetTrustDomain() })},
	v1.DomainService_ListDomains_FullMethodName: {Roles: readers, Reach: Listing, Audit: Unaudited,
		Prune: prune(func(m *v1.ListDomainsResponse, keep func(string) bool) {
			m.Domains = kept(m.GetDomains(), keep)
		})},
	v1.DomainService_GetDomain_FullMethodName: {Roles: readers, Reach: Domain, Audit: Unaudited,
		Target: inDomain[*v1.GetDomainRequest]()},
	v1.DomainService_UpdateDomain_FullMethodName: {Roles: operators, Reach: Domain, Audit: AuditedDurably,
		Target: on(func(m *v1.UpdateDomainRequest) Target { return targetDomain(m.GetDomain().GetTrustDomain()) })},
	v1.DomainService_DeleteDomain_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.DeleteDomainRequest).GetTrustDomain)},

	// Signing authorities.
	v1.AuthorityService_ListAuthorities_FullMethodName: {Roles: readers, Reach: Listing, Audit: Unaudited,
		Target: inDomain[*v1.ListAuthoritiesRequest](),
		Prune: prune(func(m *v1.ListAuthoritiesResponse, keep func(string) bool) {
			m.Authorities = kept(m.GetAuthorities(), keep)
		})},
	v1.AuthorityService_RotateAuthorities_FullMethodName: {Roles: operators, Reach: Domain, Audit: AuditedDurably,
		Target: inDomain[*v1.RotateAuthoritiesRequest]()},
	v1.AuthorityService_PrepareAuthorities_FullMethodName: {Roles: operators, Reach: Domain, Audit: AuditedDurably,
		Target: inDomain[*v1.PrepareAuthoritiesRequest]()},
	v1.AuthorityService_ActivateAuthority_FullMethodName: {Roles: operators, Reach: Domain, Audit: AuditedDurably,
		Target: on(func(m *v1.ActivateAuthorityRequest) Target {
			return targetAuthority(m.GetTrustDomain(),
				m.GetId())
		})},
	v1.AuthorityService_TaintAuthority_FullMethodName: {Roles: operators, Reach: Domain, Audit: AuditedDurably,
		Target: on(func(m *v1.TaintAuthorityRequest) Target { return targetAuthority(m.GetTrustDomain(), m.GetId()) })},
	v1.AuthorityService_RevokeAuthority_FullMethodName: {Roles: operators, Reach: Domain, Audit: AuditedDurably,
		Target: on(func(m *v1.RevokeAuthorityRequest) Target {
			if anchor := m.GetAnchor(); anchor != "" {
				return targetAuthority(m.GetTrustDomain(), "anchor "+anchor)
			}
			return targetAuthority(m.GetTrustDomain(), m.GetId())
		})},

	v1.AuthorityService_ListAnchors_FullMethodName: {Roles: readers, Reach: Listing, Audit: Unaudited,
		Target: inDomain[*v1.ListAnchorsRequest](),
		Prune: prune(func(m *v1.ListAnchorsResponse, keep func(string) bool) {
			m.Anchors = kept(m.GetAnchors(), keep)
		})},
	v1.AuthorityService_ApproveAnchor_FullMethodName: {Roles: operators, Reach: Domain, Audit: AuditedDurably,
		Target: on(func(m *v1.ApproveAnchorRequest) Target {
			return targetAuthority(m.GetTrustDomain(), "anchor "+m.GetAnchor())
		})},

	// Identities. The room writes one line to the audit log for each signature, before it returns the signature.
	v1.SVIDService_IssueX509SVID_FullMethodName: {Roles: issuers, Reach: Domain, Audit: AuditedByRoom, Issues: true,
		Target: on(func(m *v1.IssueX509SVIDRequest) Target {
			return Target{SPIFFEID: m.GetSpiffeId(), DNSNames: m.GetDnsNames(), Object: m.GetSpiffeId()}
		})},
	v1.SVIDService_IssueJWTSVID_FullMethodName: {Roles: issuers, Reach: Domain, Audit: AuditedByRoom, Issues: true,
		Target: on(func(m *v1.IssueJWTSVIDRequest) Target {
			return Target{SPIFFEID: m.GetSpiffeId(), Object: m.GetSpiffeId()}
		})},
	// A batch belongs to one domain, in which the caller may issue something. The room calls Permits for each ID.
	v1.SVIDService_IssueX509SVIDs_FullMethodName: {
		Roles:      issuers,
		Reach:      Domain,
		Audit:      AuditedByRoom,
		IssuesEach: true,
		Target:     on(func(m *v1.IssueX509SVIDsRequest) Target { return targetBatch(m.GetTrustDomain()) }),
	},
	v1.SVIDService_IssueJWTSVIDs_FullMethodName: {Roles: issuers, Reach: Domain, Audit: AuditedByRoom, IssuesEach: true,
		Target: on(func(m *v1.IssueJWTSVIDsRequest) Target { return targetBatch(m.GetTrustDomain()) })},
	// Distrusted authorities are as public as the bundles that held them.
	v1.SVIDService_WatchAuthorities_FullMethodName: {Roles: everyRole, Reach: Bundles, Audit: Unaudited, Agents: true,
		Target: on(func(m *v1.WatchAuthoritiesRequest) Target {
			return Target{TrustDomains: m.GetTrustDomains(), Object: strings.Join(m.GetTrustDomains(), " ")}
		}),
		Prune: prune(func(m *v1.WatchAuthoritiesResponse, keep func(string) bool) {
			m.Distrusted = kept(m.GetDistrusted(), keep)
		})},

	// Entries. An entry issues its ID to workloads, so that who writes one must be able to issue that ID. The room
	// calls Permits for the ID that an entry has had, and shows a caller what is in its scope.
	v1.EntryService_CreateEntry_FullMethodName: {Roles: issuers, Reach: Domain, Audit: AuditedDurably, Issues: true,
		Target: on(func(m *v1.CreateEntryRequest) Target {
			e := m.GetEntry()
			return Target{SPIFFEID: e.GetSpiffeId(), DNSNames: e.GetDnsNames(), Object: e.GetSpiffeId()}
		})},
	v1.EntryService_UpdateEntry_FullMethodName: {Roles: issuers, Reach: Anywhere, Audit: AuditedDurably,
		IssuesEach: true, Target: named(func(m *v1.UpdateEntryRequest) string { return m.GetEntry().GetId() })},
	v1.EntryService_DeleteEntry_FullMethodName: {Roles: issuers, Reach: Anywhere, Audit: AuditedDurably,
		IssuesEach: true, Target: named((*v1.DeleteEntryRequest).GetId)},
	v1.EntryService_ListEntries_FullMethodName: {Roles: entryReaders, Reach: Anywhere, Audit: Unaudited},
	v1.EntryService_GetEntry_FullMethodName:    {Roles: entryReaders, Reach: Anywhere, Audit: Unaudited},

	// Agents. An agent has the SVIDs of every entry for it, whoever wrote them. Hence only an administrator admits
	// agents.
	v1.AgentService_CreateAgentToken_FullMethodName: {Roles: admins, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.CreateAgentTokenRequest).GetAgent)},
	v1.AgentService_ListAgentTokens_FullMethodName: {Roles: operators, Reach: Cluster, Audit: Unaudited},
	v1.AgentService_RevokeAgentToken_FullMethodName: {Roles: admins, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.RevokeAgentTokenRequest).GetAgent)},
	v1.AgentService_ListAgents_FullMethodName: {Roles: readers, Reach: Cluster, Audit: Unaudited},
	v1.AgentService_GetAgent_FullMethodName:   {Roles: readers, Reach: Cluster, Audit: Unaudited},
	v1.AgentService_EvictAgent_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.EvictAgentRequest).GetName)},
	v1.AgentService_BanAgent_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.BanAgentRequest).GetName)},
	// What agents call themselves. The room refuses every caller that is none.
	v1.NodeService_RenewAgent_FullMethodName:   {Roles: admins, Reach: Anywhere, Audit: AuditedByRoom, Agents: true},
	v1.NodeService_WatchEntries_FullMethodName: {Roles: admins, Reach: Anywhere, Audit: Unaudited, Agents: true},
	v1.NodeService_IssueEntryX509SVIDs_FullMethodName: {Roles: admins, Reach: Anywhere, Audit: AuditedByRoom,
		Agents: true},
	v1.NodeService_IssueEntryJWTSVID_FullMethodName: {Roles: admins, Reach: Anywhere, Audit: AuditedByRoom,
		Agents: true},

	// Bundles.
	v1.BundleService_GetBundle_FullMethodName: {
		Roles:          everyRole,
		Reach:          Bundles,
		Audit:          Unaudited,
		DefaultsToHome: true,
		Target:         inDomain[*v1.GetBundleRequest](),
	},
	v1.BundleService_ListBundles_FullMethodName: {Roles: everyRole, Reach: Bundles, Audit: Unaudited,
		Prune: prune(func(m *v1.ListBundlesResponse, keep func(string) bool) {
			m.Bundles = kept(m.GetBundles(), keep)
		})},
	v1.BundleService_GetBundleHistory_FullMethodName: {
		Roles:          readers,
		Reach:          Bundles,
		Audit:          Unaudited,
		DefaultsToHome: true,
		Target:         inDomain[*v1.GetBundleHistoryRequest](),
	},
	v1.BundleService_CompareBundleVersions_FullMethodName: {
		Roles:          readers,
		Reach:          Bundles,
		Audit:          Unaudited,
		DefaultsToHome: true,
		Target:         inDomain[*v1.CompareBundleVersionsRequest](),
	},
	v1.BundleService_ListBundleStatements_FullMethodName: {
		Roles:          everyRole,
		Reach:          Bundles,
		Audit:          Unaudited,
		DefaultsToHome: true,
		Target:         inDomain[*v1.ListBundleStatementsRequest](),
	},
	v1.BundleService_WatchBundles_FullMethodName: {Roles: everyRole, Reach: Bundles, Audit: Unaudited, Agents: true,
		Target: on(func(m *v1.WatchBundlesRequest) Target {
			return Target{TrustDomains: m.GetTrustDomains(), Object: strings.Join(m.GetTrustDomains(), " ")}
		}),
		Prune: prune(func(m *v1.WatchBundlesResponse, keep func(string) bool) {
			m.Changed = kept(m.GetChanged(), keep)
			m.Deleted = slices.DeleteFunc(slices.Clone(m.GetDeleted()), func(td string) bool { return !keep(td) })
		})},

	// Relationships belong to the whole cluster: they decide which callers the workloads of every hosted domain trust.
	v1.FederationService_CreateRelationship_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named(func(m *v1.CreateRelationshipRequest) string { return m.GetRelationship().GetTrustDomain() })},
	v1.FederationService_ListRelationships_FullMethodName: {Roles: readers, Reach: Cluster, Audit: Unaudited},
	v1.FederationService_GetRelationship_FullMethodName:   {Roles: readers, Reach: Cluster, Audit: Unaudited},
	v1.FederationService_UpdateRelationship_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named(func(m *v1.UpdateRelationshipRequest) string { return m.GetRelationship().GetTrustDomain() })},
	v1.FederationService_DeleteRelationship_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.DeleteRelationshipRequest).GetTrustDomain)},
	v1.FederationService_RefreshRelationship_FullMethodName: {Roles: operators, Reach: Cluster, Audit: Audited,
		Target: named((*v1.RefreshRelationshipRequest).GetTrustDomain)},
	v1.FederationService_SuspendRelationship_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.SuspendRelationshipRequest).GetTrustDomain)},
	v1.FederationService_ResumeRelationship_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.ResumeRelationshipRequest).GetTrustDomain)},

	v1.FederationService_ApproveRelationship_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.ApproveRelationshipRequest).GetTrustDomain)},
	v1.FederationService_CreateInvitation_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.CreateInvitationRequest).GetForeignTrustDomain)},
	v1.FederationService_GetInvitation_FullMethodName: {Roles: readers, Reach: Cluster, Audit: Unaudited,
		Target: named((*v1.GetInvitationRequest).GetId)},
	v1.FederationService_ListInvitations_FullMethodName: {Roles: readers, Reach: Cluster, Audit: Unaudited},
	v1.FederationService_RevokeInvitation_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.RevokeInvitationRequest).GetId)},
	// The object of a redemption is a secret. The room records the outcome in a line of its own.
	v1.FederationService_RedeemInvitation_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably},

	// Streams of other clusters. The room checks their callers against the relationships, which name the peers.
	v1.PeerService_Exchange_FullMethodName: {Roles: peers, Reach: Anywhere, Audit: Unaudited, PeerMembers: true},

	// Instances. The room's transaction determines which instance a call replaces, renews or removes: see Permits.
	v1.RoutingService_RegisterInstance_FullMethodName: {Roles: registrars, Reach: Domain, Audit: Audited,
		Target: on(func(m *v1.RegisterInstanceRequest) Target {
			i := m.GetInstance()
			return Target{SPIFFEID: i.GetSpiffeId(), Object: i.GetService() + " " + i.GetAddress()}
		})},
	// A lease belongs to the caller that holds it, which the room checks. The room audits what else the stream changes.
	v1.RoutingService_KeepLease_FullMethodName:  {Roles: registrars, Reach: Anywhere, Audit: Audited},
	v1.RoutingService_ListLeases_FullMethodName: {Roles: discoverers, Reach: Anywhere, Audit: Unaudited},
	// The room calls Permits for each instance that the set adds or removes.
	v1.RoutingService_ReplaceInstances_FullMethodName: {Roles: registrars, Reach: Anywhere, Audit: Audited,
		Target: on(func(m *v1.ReplaceInstancesRequest) Target {
			if service := m.GetTarget().GetService(); service != "" {
				return Target{Object: "all of " + service}
			}
			return Target{Object: "all of a lease"}
		})},
	v1.RoutingService_DeregisterInstance_FullMethodName: {Roles: registrars, Reach: Anywhere, Audit: Audited,
		Target: on(func(m *v1.DeregisterInstanceRequest) Target {
			return Target{Object: m.GetService() + " " + m.GetAddress()}
		})},
	v1.RoutingService_EvictInstances_FullMethodName: {Roles: registrars, Reach: Anywhere, Audit: Audited,
		Target: on(func(m *v1.EvictInstancesRequest) Target {
			return Target{Object: strings.TrimSpace("kept of " + m.GetService() + " " + m.GetLease())}
		})},
	v1.RoutingService_ListServices_FullMethodName: {Roles: discoverers, Reach: Anywhere, Audit: Unaudited},
	v1.RoutingService_GetService_FullMethodName:   {Roles: discoverers, Reach: Anywhere, Audit: Unaudited},
	// Hints cover what is in the scope of the caller, as routes over xDS do: see ScopeFrom.
	v1.RoutingService_GetHint_FullMethodName: {Roles: discoverers, Reach: Anywhere, Audit: Unaudited},
	v1.RoutingService_WatchHint_FullMethodName: {
		Roles:  discoverers,
		Reach:  Anywhere,
		Audit:  Unaudited,
		Scoped: true,
	},
	v1.RoutingService_SimulateHint_FullMethodName: {Roles: discoverers, Reach: Anywhere, Audit: Unaudited},
	// Routing rules affect the traffic of all domains.
	v1.RoutingService_PutRules_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: on(func(m *v1.PutRulesRequest) Target {
			var services []string
			for _, r := range m.GetRules() {
				services = append(services, r.GetService())
			}
			return Target{Object: "rules for " + strings.Join(services, " ")}
		})},
	v1.RoutingService_ListRules_FullMethodName: {Roles: discoverers, Reach: Anywhere, Audit: Unaudited},
	v1.RoutingService_GetRule_FullMethodName:   {Roles: discoverers, Reach: Anywhere, Audit: Unaudited},
	v1.RoutingService_DeleteRule_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.DeleteRuleRequest).GetService)},

	// Exports and imports belong to the whole cluster, as relationships do.
	v1.RoutingService_ExportService_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: on(func(m *v1.ExportServiceRequest) Target {
			return Target{Object: m.GetExport().GetService() + " to " + m.GetExport().GetTo()}
		})},
	v1.RoutingService_ListServiceExports_FullMethodName: {Roles: readers, Reach: Cluster, Audit: Unaudited},
	v1.RoutingService_UnexportService_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: on(func(m *v1.UnexportServiceRequest) Target {
			return Target{Object: m.GetName() + " to " + m.GetTo()}
		})},
	v1.RoutingService_ImportService_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: on(func(m *v1.ImportServiceRequest) Target {
			return Target{Object: m.GetImport().GetName() + " from " + m.GetImport().GetFrom()}
		})},
	v1.RoutingService_ListServiceImports_FullMethodName: {Roles: readers, Reach: Cluster, Audit: Unaudited},
	v1.RoutingService_UnimportService_FullMethodName: {Roles: operators, Reach: Cluster, Audit: AuditedDurably,
		Target: on(func(m *v1.UnimportServiceRequest) Target {
			return Target{Object: m.GetService() + " from " + m.GetFrom()}
		})},

	// Routes over xDS cover what is in the scope of the caller: see ScopeFrom.
	aggregatedResources: {Roles: discoverers, Reach: Anywhere, Audit: Unaudited, Scoped: true},
	aggregatedDeltas:    {Roles: discoverers, Reach: Anywhere, Audit: Unaudited, Scoped: true},

	// Grants. The administrator of one domain grants roles in that domain only.
	v1.AccessService_GrantRole_FullMethodName: {Roles: admins, Reach: Domain, Audit: AuditedDurably,
		Target: on(func(m *v1.GrantRoleRequest) Target { return targetGrant(m.GetGrant()) })},
	v1.AccessService_GetGrant_FullMethodName: {Roles: admins, Reach: Domain, Audit: Unaudited,
		Target: inDomain[*v1.GetGrantRequest]()},
	v1.AccessService_ListGrants_FullMethodName: {Roles: admins, Reach: Listing, Audit: Unaudited,
		Prune: prune(func(m *v1.ListGrantsResponse, keep func(string) bool) {
			m.Grants, m.ReservedServices = kept(m.GetGrants(), keep), nil
		})},
	v1.AccessService_RevokeRole_FullMethodName: {Roles: admins, Reach: Domain, Audit: AuditedDurably,
		Target: on(func(m *v1.RevokeRoleRequest) Target {
			return targetGrant(m)
		})},

	// A service belongs to no domain.
	v1.AccessService_ReleaseService_FullMethodName: {Roles: admins, Reach: Cluster, Audit: AuditedDurably,
		Target: named((*v1.ReleaseServiceRequest).GetService)},

	// The audit log covers every domain.
	v1.AuditService_TailAudit_FullMethodName: {Roles: operators, Reach: Cluster, Audit: Unaudited},

	// The process of the member. These are served on the admin socket alone.
	v1.DebugService_Collect_FullMethodName: {Roles: admins, Reach: Cluster, Audit: Audited},
	v1.DebugService_Profile_FullMethodName: {Roles: admins, Reach: Cluster, Audit: Audited,
		Target: named((*v1.ProfileRequest).GetProfile)},
}

// targetGrant returns the domain of a grant as the target. The object names the whole grant. What a grant gives beyond
// its domain is for an administrator of every domain: an ID in one domain can have a role in others.
func targetGrant(g grant.Fields) Target {
	a := targetDomain(g.GetTrustDomain())
	a.Object = grant.RoleName(g.GetRole()) + " of " + g.GetSpiffeId() + " in " + a.Object
	if p := g.GetPathPrefix(); p != "" {
		a.Object += " below " + p
	}
	if names := g.GetDnsNames(); len(names) > 0 {
		a.Object += " with DNS names " + strings.Join(names, " ")
	}
	if roles := g.GetMayIssue(); len(roles) > 0 {
		a.Object += " for IDs with the role " + grant.RoleNames(roles)
		a.TrustDomains = nil
	}
	if services := g.GetServices(); len(services) > 0 { // a service belongs to no domain
		a.Object += " for services " + strings.Join(services, " ")
		a.TrustDomains = nil
	}
	return a
}

// targetBatch returns the domain that a batch must name: no domain does not mean every domain here.
func targetBatch(td string) Target { return Target{TrustDomains: []string{td}, Object: td} }

// targetAuthority returns the domain that a request must name. The object names one of its authorities.
func targetAuthority(td, id string) Target {
	return Target{TrustDomains: []string{td}, Object: id + " of " + td}
}

// kept returns the items whose trust domain keep accepts, in a new slice: the response may be shared.
func kept[M interface{ GetTrustDomain() string }](items []M, keep func(string) bool) []M {
	return slices.DeleteFunc(slices.Clone(items), func(m M) bool { return !keep(m.GetTrustDomain()) })
}
