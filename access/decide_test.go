package access_test

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

var world = access.World{
	Home: spiffeid.RequireTrustDomainFromString("eu.test"),
	Hosted: func(td spiffeid.TrustDomain) bool {
		return td.Name() == "eu.test" || td.Name() == "pay.test"
	},
}

func granted(t *testing.T, role grant.Role, td, path string) grant.Grant {
	t.Helper()
	g, err := grant.Parse(&v1.Grant{Role: role, SpiffeId: "spiffe://eu.test/ci", TrustDomain: td,
		PathPrefix: path})
	require.NoError(t, err)
	return g
}

func TestDecide(t *testing.T) {
	ci := access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.test/ci"))
	socket := access.SocketCaller(0, 42)
	x509 := func(id string) proto.Message { return &v1.IssueX509SVIDRequest{SpiffeId: id} }
	register := func(id string) proto.Message {
		return &v1.RegisterInstanceRequest{Instance: &v1.Instance{SpiffeId: id}}
	}
	type grants = []grant.Grant
	for name, test := range map[string]struct {
		caller  access.Caller
		grants  grants
		method  string
		request proto.Message
		refusal string // empty: allowed
		code    string
	}{
		"nobody": {
			method: v1.ClusterService_ListMembers_FullMethodName, request: &v1.ListMembersRequest{},
			refusal: "ClusterService/ListMembers requires an authenticated caller: present an X509-SVID, or use the " +
				"admin socket", code: "Unauthenticated",
		},
		"a member by its identity key": {
			caller: access.MemberCaller("eu-1"),
			method: v1.ClusterService_ListMembers_FullMethodName, request: &v1.ListMembersRequest{},
			refusal: "member eu-1 may not call ClusterService/ListMembers with its identity key: the services for " +
				"members are served under entente-member/1",
		},
		"the admin socket": {
			caller: socket, method: v1.ClusterService_RestoreSnapshot_FullMethodName,
			request: &v1.RestoreSnapshotRequest{},
		},
		"the admin socket issues no reserved ID": {
			caller: socket, method: v1.SVIDService_IssueX509SVID_FullMethodName,
			request: x509("spiffe://pay.test/entente/member/eu-1"),
			refusal: "spiffe://pay.test/entente/member/eu-1 is never issued through the API: only the server itself " +
				"issues IDs below /entente/; choose another path",
		},
		"the reserved segment itself": {
			caller: socket, method: v1.SVIDService_IssueJWTSVID_FullMethodName,
			request: &v1.IssueJWTSVIDRequest{SpiffeId: "spiffe://pay.test/entente"},
			refusal: "spiffe://pay.test/entente is never issued through the API: only the server itself issues IDs " +
				"below /entente/; choose another path",
		},
		"a path that only begins like the reserved one": {
			caller: socket, method: v1.SVIDService_IssueX509SVID_FullMethodName,
			request: x509("spiffe://pay.test/ententecordiale"),
		},
		"no ID": {
			caller: socket, method: v1.SVIDService_IssueX509SVID_FullMethodName, request: x509(""),
			refusal: `SPIFFE ID "": the string is not a valid SPIFFE ID: it does not begin with "spiffe://"`,
			code:    "InvalidArgument",
		},
		"a malformed ID": {
			caller: ci, method: v1.SVIDService_IssueX509SVID_FullMethodName,
			request: x509("spiffe://eu.test/a/../entente/x"),
			refusal: `SPIFFE ID "spiffe://eu.test/a/../entente/x": the string is not a valid SPIFFE ID: its path has ` +
				`the relative segment ".."`, code: "InvalidArgument",
		},
		"no grant": {
			caller: ci, method: v1.SVIDService_IssueX509SVID_FullMethodName, request: x509("spiffe://pay.test/web/1"),
			refusal: "spiffe://eu.test/ci may not call SVIDService/IssueX509SVID: it needs the role issuer or admin " +
				"in pay.test for the path /web/1, and has none. To allow it, an administrator runs: entente access " +
				"grant issuer --spiffe-id spiffe://eu.test/ci --domain pay.test --path /web/1",
		},
		"another role": {
			caller: ci, grants: grants{granted(t, grant.Operator, "", "")},
			method: v1.SVIDService_IssueX509SVID_FullMethodName, request: x509("spiffe://pay.test/web"),
			refusal: "spiffe://eu.test/ci may not call SVIDService/IssueX509SVID: it needs the role issuer or admin " +
				"in pay.test for the path /web, and has operator in every hosted domain. To allow it, an " +
				"administrator runs: entente access grant issuer --spiffe-id spiffe://eu.test/ci --domain " +
				"pay.test --path /web",
		},
		"another domain": {
			caller: ci, grants: grants{granted(t, grant.Issuer, "eu.test", "")},
			method: v1.SVIDService_IssueX509SVID_FullMethodName, request: x509("spiffe://pay.test/web"),
			refusal: "spiffe://eu.test/ci may not call SVIDService/IssueX509SVID: it needs the role issuer or admin " +
				"in pay.test for the path /web, and has issuer in eu.test. To allow it, an administrator runs: " +
				"entente access grant issuer --spiffe-id spiffe://eu.test/ci --domain pay.test --path /web",
		},
		"another path": {
			caller: ci, grants: grants{granted(t, grant.Issuer, "pay.test", "/ci"),
				granted(t, grant.Issuer, "pay.test", "/we")},
			method: v1.SVIDService_IssueX509SVID_FullMethodName, request: x509("spiffe://pay.test/web"),
			refusal: "spiffe://eu.test/ci may not call SVIDService/IssueX509SVID: it needs the role issuer or admin " +
				"in pay.test for the path /web, and has issuer in pay.test below /ci, issuer in pay.test below /we. " +
				"To allow it, an administrator runs: entente access grant issuer --spiffe-id spiffe://eu.test/ci " +
				"--domain pay.test --path /web",
		},
		"below the path": {
			caller: ci, grants: grants{granted(t, grant.Issuer, "pay.test", "/web")},
			method: v1.SVIDService_IssueX509SVID_FullMethodName, request: x509("spiffe://pay.test/web/1"),
		},
		"the path itself, in every domain": {
			caller: ci, grants: grants{granted(t, grant.Issuer, "", "/web")},
			method: v1.SVIDService_IssueX509SVID_FullMethodName, request: x509("spiffe://pay.test/web"),
		},
		"an issuer for everything issues no reserved ID": {
			caller: ci, grants: grants{granted(t, grant.Admin, "", "")},
			method:  v1.SVIDService_IssueX509SVID_FullMethodName,
			request: x509("spiffe://eu.test/entente/bundle-endpoint"),
			refusal: "spiffe://eu.test/entente/bundle-endpoint is never issued through the API: only the server " +
				"itself issues IDs below /entente/; choose another path",
		},
		"cluster-wide with a grant for one domain": {
			caller: ci, grants: grants{granted(t, grant.Operator, "pay.test", "")},
			method:  v1.DomainService_DeleteDomain_FullMethodName,
			request: &v1.DeleteDomainRequest{TrustDomain: "pay.test"},
			refusal: "spiffe://eu.test/ci may not call DomainService/DeleteDomain: it needs the role operator or " +
				"admin in every hosted domain, and has operator in pay.test. To allow it, an administrator runs: " +
				"entente access grant operator --spiffe-id spiffe://eu.test/ci",
		},
		"cluster-wide": {
			caller: ci, grants: grants{granted(t, grant.Operator, "", "")},
			method: v1.FederationService_CreateRelationship_FullMethodName, request: &v1.CreateRelationshipRequest{},
		},
		"an operator restores nothing": {
			caller: ci, grants: grants{granted(t, grant.Operator, "", "")},
			method: v1.ClusterService_RestoreSnapshot_FullMethodName, request: &v1.RestoreSnapshotRequest{},
			refusal: "spiffe://eu.test/ci may not call ClusterService/RestoreSnapshot: it needs the role admin in " +
				"every hosted domain, and has operator in every hosted domain. To allow it, an administrator runs: " +
				"entente access grant admin --spiffe-id spiffe://eu.test/ci",
		},
		"one's own domain": {
			caller: ci, grants: grants{granted(t, grant.Operator, "pay.test", "")},
			method:  v1.AuthorityService_RotateAuthorities_FullMethodName,
			request: &v1.RotateAuthoritiesRequest{TrustDomain: "pay.test"},
		},
		"the same domain written as an ID": {
			caller: ci, grants: grants{granted(t, grant.Operator, "pay.test", "")},
			method:  v1.AuthorityService_RotateAuthorities_FullMethodName,
			request: &v1.RotateAuthoritiesRequest{TrustDomain: "spiffe://pay.test"},
			refusal: `trust domain "spiffe://pay.test": the name is not a valid trust domain: write the name alone, ` +
				`without scheme or path`, code: "InvalidArgument",
		},
		"every domain with a grant for one": {
			caller: ci, grants: grants{granted(t, grant.Operator, "pay.test", "")},
			method: v1.AuthorityService_RotateAuthorities_FullMethodName, request: &v1.RotateAuthoritiesRequest{},
			refusal: "spiffe://eu.test/ci may not call AuthorityService/RotateAuthorities: it needs the role " +
				"operator or admin in every hosted domain, and has operator in pay.test. To allow it, an " +
				"administrator runs: entente access grant operator --spiffe-id spiffe://eu.test/ci",
		},
		"a listing with a grant for one domain": {
			caller: ci, grants: grants{granted(t, grant.Reader, "pay.test", "")},
			method: v1.AuthorityService_ListAuthorities_FullMethodName, request: &v1.ListAuthoritiesRequest{},
		},
		"a stream of a member of another cluster": {
			caller:  access.SVIDCaller(spiffeid.RequireFromString("spiffe://us.test/entente/member/us-1")),
			method:  v1.PeerService_Exchange_FullMethodName,
			request: &v1.ExchangeRequest{},
		},
		"such a member and the rest of the API": {
			caller: access.SVIDCaller(spiffeid.RequireFromString("spiffe://us.test/entente/member/us-1")),
			method: v1.FederationService_ListRelationships_FullMethodName, request: &v1.ListRelationshipsRequest{},
			refusal: "spiffe://us.test/entente/member/us-1 may not call FederationService/ListRelationships: it " +
				"needs the role reader, operator or admin in every hosted domain, and has none. To allow it, an " +
				"administrator runs: entente access grant reader --spiffe-id spiffe://us.test/entente/member/us-1",
		},
		"a listing of another domain": {
			caller: ci, grants: grants{granted(t, grant.Reader, "pay.test", "")},
			method:  v1.AuthorityService_ListAuthorities_FullMethodName,
			request: &v1.ListAuthoritiesRequest{TrustDomain: "eu.test"},
			refusal: "spiffe://eu.test/ci may not call AuthorityService/ListAuthorities: it needs the role reader, " +
				"operator or admin in eu.test, and has reader in pay.test. To allow it, an administrator runs: " +
				"entente access grant reader --spiffe-id spiffe://eu.test/ci --domain eu.test",
		},
		"a foreign bundle": {
			caller: ci, grants: grants{granted(t, grant.Issuer, "pay.test", "/web")},
			method: v1.BundleService_GetBundle_FullMethodName, request: &v1.GetBundleRequest{TrustDomain: "us.test"},
		},
		"another hosted domain's bundle": {
			caller: ci, grants: grants{granted(t, grant.Issuer, "pay.test", "/web")},
			method: v1.BundleService_GetBundle_FullMethodName, request: &v1.GetBundleRequest{},
			refusal: "spiffe://eu.test/ci may not call BundleService/GetBundle: it needs the role reader, discovery, " +
				"issuer, peer, operator or admin in eu.test, and has issuer in pay.test below /web. To allow it, an " +
				"administrator runs: entente access grant reader --spiffe-id spiffe://eu.test/ci --domain eu.test",
		},
		"bundles of two hosted domains by two grants": {
			caller: ci, grants: grants{granted(t, grant.Issuer, "pay.test", "/web"),
				granted(t, grant.Reader, "eu.test", "")},
			method:  v1.BundleService_WatchBundles_FullMethodName,
			request: &v1.WatchBundlesRequest{TrustDomains: []string{"pay.test", "eu.test"}},
		},
		"a domain that is none": {
			caller: ci, grants: grants{granted(t, grant.Reader, "", "")},
			method: v1.DomainService_GetDomain_FullMethodName, request: &v1.GetDomainRequest{TrustDomain: "PAY"},
			refusal: `trust domain "PAY": the name is not a valid trust domain: byte 1 is 'P'; lower-case letters, ` +
				`digits, dot, dash and underscore are allowed`, code: "InvalidArgument",
		},
		"an instance below the path": {
			caller: ci, grants: grants{granted(t, grant.Discovery, "pay.test", "/web")},
			method: v1.RoutingService_RegisterInstance_FullMethodName, request: register("spiffe://pay.test/web/1"),
		},
		"an instance of a foreign domain": {
			caller: ci, grants: grants{granted(t, grant.Discovery, "pay.test", "/web")},
			method: v1.RoutingService_RegisterInstance_FullMethodName, request: register("spiffe://us.test/web"),
			refusal: "spiffe://eu.test/ci may not call RoutingService/RegisterInstance: it needs the role discovery, " +
				"operator or admin in us.test for the path /web, and has discovery in pay.test below /web. To " +
				"allow it, an administrator runs: entente access grant discovery --spiffe-id spiffe://eu.test/ci " +
				"--domain us.test --path /web",
		},
		"a foreign instance with a grant for every domain": {
			caller: ci, grants: grants{granted(t, grant.Discovery, "", "/web")},
			method: v1.RoutingService_RegisterInstance_FullMethodName, request: register("spiffe://us.test/web"),
		},
		"a hint": {
			caller: ci, grants: grants{granted(t, grant.Discovery, "pay.test", "/web")},
			method: v1.RoutingService_GetHint_FullMethodName, request: &v1.GetHintRequest{},
		},
		"grants in one's own domain": {
			caller: ci, grants: grants{granted(t, grant.Admin, "pay.test", "")},
			method:  v1.AccessService_GrantRole_FullMethodName,
			request: &v1.GrantRoleRequest{Grant: &v1.Grant{TrustDomain: "pay.test"}},
		},
		"a wider grant than one's own": {
			caller: ci, grants: grants{granted(t, grant.Admin, "pay.test", "")},
			method:  v1.AccessService_GrantRole_FullMethodName,
			request: &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Reader}},
			refusal: "spiffe://eu.test/ci may not call AccessService/GrantRole: it needs the role admin in every " +
				"hosted domain, and has admin in pay.test. To allow it, an administrator runs: entente access grant " +
				"admin --spiffe-id spiffe://eu.test/ci",
		},
		"an operator grants nothing": {
			caller: ci, grants: grants{granted(t, grant.Operator, "", "")},
			method: v1.AccessService_RevokeRole_FullMethodName, request: &v1.RevokeRoleRequest{TrustDomain: "pay.test"},
			refusal: "spiffe://eu.test/ci may not call AccessService/RevokeRole: it needs the role admin in " +
				"pay.test, and has operator in every hosted domain. To allow it, an administrator runs: entente " +
				"access grant admin --spiffe-id spiffe://eu.test/ci --domain pay.test",
		},
	} {
		t.Run(name, func(t *testing.T) {
			rule, ok := access.Rules()[test.method]
			require.True(t, ok)
			call := access.Call{Method: test.method, Rule: rule, Caller: test.caller, Grants: test.grants}
			if rule.Target != nil {
				call.Target = rule.Target(test.request)
			}
			err := access.Decide(call, world)
			if test.refusal == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.refusal)
			code := test.code
			if code == "" {
				code = "PermissionDenied"
			}
			require.Equal(t, code, status.Code(err).String())
		})
	}
}
