package access_test

import (
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

func parsed(t *testing.T, m *v1.Grant) grant.Grant {
	t.Helper()
	g, err := grant.Parse(m)
	require.NoError(t, err)
	return g
}

// An issuer issues no ID that has a role which the issuer could not grant.
func TestIssuerDoesNotIssueRoles(t *testing.T) {
	const ops = "spiffe://eu.test/ops"
	issuer := func(change func(*v1.Grant)) []grant.Grant {
		m := &v1.Grant{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test"}
		change(m)
		return []grant.Grant{parsed(t, m)}
	}
	plain := issuer(func(*v1.Grant) {})
	admin := func(domains ...string) (all []grant.Grant) {
		for _, td := range domains {
			all = append(all, granted(t, grant.Admin, td, ""))
		}
		return all
	}
	refusal := func(role, flags string) string {
		return "spiffe://eu.test/ci may not issue spiffe://eu.test/ops: SVIDs of that ID have the role " + role +
			". To allow it, an administrator runs: entente access grant issuer --spiffe-id spiffe://eu.test/ci " +
			"--domain eu.test" + flags
	}
	for name, test := range map[string]struct {
		roles   []*v1.Grant // of ops
		caller  string      // instead of ci
		grants  []grant.Grant
		refusal string
	}{
		"no role": {grants: plain},
		"reader":  {roles: []*v1.Grant{{Role: grant.Reader}}, grants: plain},
		"admin": {roles: []*v1.Grant{{Role: grant.Admin}}, grants: plain,
			refusal: refusal("admin", " --may-issue admin")},
		"operator": {roles: []*v1.Grant{{Role: grant.Operator}}, grants: plain,
			refusal: refusal("operator", " --may-issue operator")},
		"issuer of another domain": {roles: []*v1.Grant{{Role: grant.Issuer, TrustDomain: "pay.test"}}, grants: plain,
			refusal: refusal("issuer", " --may-issue issuer")},
		"peer": {roles: []*v1.Grant{{Role: grant.Peer}}, grants: plain, refusal: refusal("peer", " --may-issue peer")},
		"two roles, one of them allowed": {
			roles: []*v1.Grant{{Role: grant.Admin}, {Role: grant.Peer}},
			grants: issuer(func(g *v1.Grant) {
				g.PathPrefix, g.DnsNames, g.MayIssue = "/ops", []string{"a.test"}, []grant.Role{grant.Peer}
			}),
			refusal: refusal("admin and peer", " --path /ops --dns a.test --may-issue admin --may-issue peer"),
		},
		"allowed": {
			roles:  []*v1.Grant{{Role: grant.Admin}, {Role: grant.Peer}},
			grants: issuer(func(g *v1.Grant) { g.MayIssue = []grant.Role{grant.Peer, grant.Admin} }),
		},
		"its own ID": {
			roles: []*v1.Grant{{Role: grant.Issuer}}, caller: ops,
			grants: []grant.Grant{parsed(t, &v1.Grant{Role: grant.Issuer, SpiffeId: ops})},
		},
		"the administrator of every domain": {roles: []*v1.Grant{{Role: grant.Admin}}, grants: admin("")},
		"the administrator of the role's domain": {
			roles: []*v1.Grant{{Role: grant.Admin, TrustDomain: "eu.test"}}, grants: admin("eu.test"),
		},
		"the administrator of one domain makes itself that of every one": {
			roles: []*v1.Grant{{Role: grant.Admin}}, grants: admin("eu.test"),
			refusal: refusal("admin", " --may-issue admin"),
		},
		"the administrator of one domain makes itself one of another": {
			roles: []*v1.Grant{{Role: grant.Operator, TrustDomain: "pay.test"}}, grants: admin("eu.test"),
			refusal: refusal("operator", " --may-issue operator"),
		},
		"the administrator of both": {
			roles: []*v1.Grant{{Role: grant.Operator, TrustDomain: "pay.test"}}, grants: admin("eu.test", "pay.test"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := world
			w.GrantsOf = func(id spiffeid.ID) (all []grant.Grant, err error) {
				for _, m := range test.roles {
					m.SpiffeId = ops
					if g := parsed(t, m); g.Caller == id {
						all = append(all, g)
					}
				}
				return all, nil
			}
			caller := ci
			if test.caller != "" {
				caller = access.SVIDCaller(spiffeid.RequireFromString(test.caller))
			}
			for method, request := range map[string]proto.Message{
				v1.SVIDService_IssueX509SVID_FullMethodName: &v1.IssueX509SVIDRequest{SpiffeId: ops},
				v1.SVIDService_IssueJWTSVID_FullMethodName:  &v1.IssueJWTSVIDRequest{SpiffeId: ops},
			} {
				rule := access.Rules()[method]
				err := access.Decide(access.Call{
					Method: method, Rule: rule, Caller: caller, Grants: test.grants, Target: rule.Target(request),
				}, w)
				if test.refusal == "" {
					require.NoError(t, err)
					continue
				}
				require.EqualError(t, err, test.refusal)
			}
		})
	}
}

func TestBatchesIssueNoRoles(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	for _, g := range []*v1.Grant{
		{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test"},
		{Role: grant.Admin, SpiffeId: "spiffe://eu.test/ops"},
	} {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: g})
		require.NoError(t, err)
	}
	client := v1.NewSVIDServiceClient(h.dial(t, ci))
	h.ids <- spiffeid.RequireFromString("spiffe://eu.test/web")
	_, err := client.IssueX509SVIDs(t.Context(), &v1.IssueX509SVIDsRequest{TrustDomain: "eu.test"})
	require.NoError(t, err)
	h.ids <- spiffeid.RequireFromString("spiffe://eu.test/ops")
	_, err = client.IssueX509SVIDs(t.Context(), &v1.IssueX509SVIDsRequest{TrustDomain: "eu.test"})
	require.EqualError(t, err, "rpc error: code = PermissionDenied desc = spiffe://eu.test/ci may not issue "+
		"spiffe://eu.test/ops: SVIDs of that ID have the role admin. To allow it, an administrator runs: entente "+
		"access grant issuer --spiffe-id spiffe://eu.test/ci --domain eu.test --may-issue admin")
}

// What an ID in one domain can do in others is not for the administrator of that domain to give.
func TestMayIssueIsGrantedByAdministratorsOfEveryDomain(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{
		Grant: &v1.Grant{Role: grant.Admin, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test"},
	})
	require.NoError(t, err)
	one := v1.NewAccessServiceClient(h.dial(t, ci))
	wanted := &v1.Grant{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test"}
	_, err = one.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: wanted})
	require.NoError(t, err)
	wanted.MayIssue = []grant.Role{grant.Admin}
	_, err = one.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: wanted})
	require.EqualError(t, err, "rpc error: code = PermissionDenied desc = spiffe://eu.test/ci may not call "+
		"AccessService/GrantRole: it needs the role admin in every hosted domain, and has admin in eu.test, issuer in "+
		"eu.test. To allow it, an administrator runs: entente access grant admin --spiffe-id spiffe://eu.test/ci")
	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: wanted})
	require.NoError(t, err)
	list, err := admin.ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetGrants(), 3)
	_, err = admin.RevokeRole(t.Context(), &v1.RevokeRoleRequest{
		Role: grant.Issuer, SpiffeId: wanted.GetSpiffeId(), TrustDomain: "eu.test", MayIssue: wanted.GetMayIssue(),
	})
	require.NoError(t, err)

	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{
		Role: grant.Reader, SpiffeId: "spiffe://eu.test/ci", MayIssue: []grant.Role{grant.Admin},
	}})
	require.EqualError(t, err, "rpc error: code = InvalidArgument desc = may_issue is for the role issuer: leave it "+
		"out for reader")
	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{
		Role: grant.Issuer, SpiffeId: "spiffe://eu.test/ci", MayIssue: []grant.Role{grant.Reader},
	}})
	require.EqualError(t, err, "rpc error: code = InvalidArgument desc = may_issue lists reader: it is for the roles "+
		"admin, operator, issuer or peer")
}

// A hub can issue itself every ID of the domains that it attests. It must not become an administrator by that.
func TestPrivilegedRolesDoNotCountByAttestation(t *testing.T) {
	direct := map[string]bool{"eu.test": true, "pay.test": true}
	h := buildWith(t, func(c *access.GuardConfig) {
		c.Direct = func(_ raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return direct[td.Name()], nil }
	})
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	const foreign = "spiffe://us.test/ops"
	for _, role := range []grant.Role{grant.Admin, grant.Peer, grant.Reader} {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: role, SpiffeId: foreign}})
		require.NoError(t, err)
	}
	conn := h.dial(t, access.SVIDCaller(spiffeid.RequireFromString(foreign)))
	client := v1.NewDomainServiceClient(conn)
	_, err := client.ListDomains(t.Context(), &v1.ListDomainsRequest{})
	require.NoError(t, err, "a reader reads")
	_, err = client.CreateDomain(t.Context(), create("evil.test"))
	require.EqualError(t, err, "rpc error: code = PermissionDenied desc = spiffe://us.test/ops may not call "+
		"DomainService/CreateDomain: us.test is known only by the attestation of a hub, and then the roles admin, "+
		"operator, issuer or peer do not count. To let them count, an operator creates a relationship with us.test")
	_, err = v1.NewAccessServiceClient(conn).ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	direct["us.test"] = true
	_, err = client.CreateDomain(t.Context(), create("fine.test"))
	require.NoError(t, err)
}

func TestGrantWarnsOfLiveSVIDs(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	h := buildWith(t, func(c *access.GuardConfig) {
		c.Now = func() time.Time { return now }
		c.LongestSVID = func(raftstore.Reader, spiffeid.TrustDomain) (time.Duration, error) {
			return 2 * time.Hour, nil
		}
	})
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	give := func(m *v1.Grant) []string {
		g, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: m})
		require.NoError(t, err)
		return g.GetWarnings()
	}
	revoke := func(m *v1.RevokeRoleRequest) {
		_, err := admin.RevokeRole(t.Context(), m)
		require.NoError(t, err)
	}
	ops := &v1.Grant{Role: grant.Admin, SpiffeId: "spiffe://eu.test/team/ops"}
	warning := func(until, able string) []string {
		return []string{"an SVID of spiffe://eu.test/team/ops that was issued before this grant has the role admin " +
			"too, and can be valid until " + until + "; besides administrators, these could have had it issued: " +
			able}
	}
	require.Equal(t, warning("2026-11-01T14:00:00Z", "none"), give(ops))

	for _, m := range []*v1.Grant{
		{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test", PathPrefix: "/team"},
		{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/other", TrustDomain: "eu.test", PathPrefix: "/other"},
		{Role: grant.Issuer, SpiffeId: "spiffe://pay.test/ci", TrustDomain: "pay.test"},
		{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/gone", TrustDomain: "eu.test"},
		{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/long-gone"},
	} {
		give(m)
	}
	revoke(&v1.RevokeRoleRequest{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/long-gone"})
	now = now.Add(3 * time.Hour)
	revoke(&v1.RevokeRoleRequest{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/gone", TrustDomain: "eu.test"})
	now = now.Add(time.Hour)
	require.Equal(t, warning("2026-11-01T18:00:00Z", "spiffe://eu.test/ci (issuer in eu.test below /team), "+
		"spiffe://eu.test/gone (issuer in eu.test, revoked at 2026-11-01T15:00:00Z)"), give(ops), "also of a grant "+
		"that exists")
	require.Equal(t, []string{"another cluster issues SVIDs of spiffe://us.test/ops: every holder of a valid one, " +
		"and every caller that can have one issued in us.test, has the role operator"},
		give(&v1.Grant{Role: grant.Operator, SpiffeId: "spiffe://us.test/ops"}))
}

// A workload whose SVIDs another authority issues, such as SPIRE, can register its own instances without a right to
// register those of others.
func TestForeignWorkloadRegistersItself(t *testing.T) {
	h := buildWith(t, func(c *access.GuardConfig) {
		c.Direct = func(_ raftstore.Reader, td spiffeid.TrustDomain) (bool, error) {
			return world.Hosted(td) || td.Name() == "us.test", nil
		}
	})
	give := func(conn access.Caller, role grant.Role, td, path string) error {
		g := &v1.Grant{Role: role, SpiffeId: "spiffe://us.test/web", TrustDomain: td, PathPrefix: path}
		_, err := v1.NewAccessServiceClient(h.dial(t, conn)).GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: g})
		return err
	}
	require.NoError(t, give(root, grant.Discovery, "us.test", "/web"))
	require.EqualError(t, give(root, grant.Discovery, "attested.test", "/web"), "rpc error: code = "+
		"FailedPrecondition desc = this cluster neither hosts the trust domain attested.test nor has a relationship "+
		"with it: entente domain list and entente federation list show those in which the role discovery "+
		"can be granted")
	require.EqualError(t, give(root, grant.Reader, "us.test", ""), "rpc error: code = FailedPrecondition desc = this "+
		"cluster does not host the trust domain us.test: roles are granted in hosted domains, which entente domain "+
		"list shows")
	_, err := v1.NewAccessServiceClient(h.dial(t, root)).GrantRole(t.Context(), &v1.GrantRoleRequest{
		Grant: &v1.Grant{Role: grant.Admin, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test"},
	})
	require.NoError(t, err)
	require.Equal(t, codes.PermissionDenied, status.Code(give(ci, grant.Discovery, "us.test", "/db")),
		"the administrator of one hosted domain has no rights in a foreign one")

	web := access.SVIDCaller(spiffeid.RequireFromString("spiffe://us.test/web"))
	register := func(id string) error {
		rule := access.Rules()[v1.RoutingService_RegisterInstance_FullMethodName]
		return access.Decide(access.Call{
			Method: v1.RoutingService_RegisterInstance_FullMethodName, Rule: rule, Caller: web,
			Grants: []grant.Grant{parsed(t, &v1.Grant{
				Role: grant.Discovery, SpiffeId: "spiffe://us.test/web", TrustDomain: "us.test", PathPrefix: "/web",
			})},
			Target: rule.Target(&v1.RegisterInstanceRequest{Instance: &v1.Instance{SpiffeId: id}}),
		}, world)
	}
	require.NoError(t, register("spiffe://us.test/web"))
	require.Error(t, register("spiffe://eu.test/web"))
	require.EqualError(t, register("spiffe://us.test/db"), "spiffe://us.test/web may not call "+
		"RoutingService/RegisterInstance: it needs the role discovery, operator or admin in us.test for the path "+
		"/db, and has discovery in us.test below /web. To allow it, an administrator runs: entente access grant "+
		"discovery --spiffe-id spiffe://us.test/web --domain us.test --path /db")
}
