package access_test

import (
	"errors"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// Instances of a service with owners are those that its owners register.
func TestDecideInstance(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	const plane, second = "spiffe://eu.test/plane", "spiffe://eu.test/second"
	owners := []*v1.Grant{
		{Role: grant.Discovery, SpiffeId: plane, TrustDomain: "eu.test", PathPrefix: "/shop",
			Services: []string{"shop"}},
		{Role: grant.Discovery, SpiffeId: second, TrustDomain: "eu.test", PathPrefix: "/deli",
			Services: []string{"shop", "deli"}},
	}
	for _, g := range owners {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: g})
		require.NoError(t, err)
	}
	all := []*v1.Grant{{Role: grant.Discovery, TrustDomain: "eu.test"}}
	refusal := func(caller, verb, service, path, why, as string) string {
		return caller + " may not " + verb + " instances of " + service + " under spiffe://eu.test" + path + ": " +
			why + ". To allow it, an administrator runs: entente access grant discovery --spiffe-id " + as +
			" --domain eu.test --path " + path + " --service " + service
	}
	const (
		noOwner  = "the service has owners, and the caller is none for that ID"
		notTheir = "the service has owners, and its instances count only under IDs of their grants"
		others   = "the caller has the role discovery for other services alone"
		mallory  = "spiffe://eu.test/mallory"
	)
	for name, test := range map[string]struct {
		caller        string // or the admin socket
		grants        []*v1.Grant
		change        access.InstanceChange
		service, path string
		refusal       string
	}{
		"a service without owners": {caller: mallory, grants: all, service: "open", path: "/web"},
		"an owner under its ID":    {caller: plane, grants: owners[:1], service: "shop", path: "/shop/a"},
		"another under an owner's ID": {caller: mallory, grants: all, service: "shop", path: "/shop",
			refusal: refusal(mallory, "register", "shop", "/shop", noOwner, mallory)},
		"another under its own ID": {caller: mallory, grants: all, service: "shop", path: "/web",
			refusal: refusal(mallory, "register", "shop", "/web", noOwner, mallory)},
		"an owner under the ID of another owner": {
			caller: plane, grants: append(all, owners[0]), service: "shop", path: "/deli",
			refusal: refusal(plane, "register", "shop", "/deli", noOwner, plane),
		},
		"an owner in another service": {caller: plane, grants: owners[:1], service: "open", path: "/shop",
			refusal: refusal(plane, "register", "open", "/shop", others, plane)},
		"an owner in the service of another": {caller: plane, grants: owners[:1], service: "deli", path: "/shop",
			refusal: refusal(plane, "register", "deli", "/shop", noOwner, plane)},
		"an owner with a grant for every service, in another": {
			caller: plane, grants: append(all, owners[0]), service: "open", path: "/shop",
		},
		"an operator under an owner's ID": {
			caller: mallory, grants: []*v1.Grant{{Role: grant.Operator}}, service: "shop", path: "/deli",
		},
		"an operator under another ID": {
			caller: mallory, grants: []*v1.Grant{{Role: grant.Operator}}, service: "shop", path: "/web",
			refusal: refusal(mallory, "register", "shop", "/web", notTheir, mallory),
		},
		"the admin socket under an owner's ID": {service: "shop", path: "/shop"},
		"the admin socket under another ID": {service: "shop", path: "/web",
			refusal: refusal("admin socket (uid 0, pid 42)", "register", "shop", "/web", notTheir,
				"spiffe://eu.test/web")},
		"the admin socket removes under another ID": {change: access.RemovesInstance, service: "shop", path: "/web"},
		"another removes under an owner's ID": {
			caller: mallory, grants: all, change: access.RemovesInstance, service: "shop", path: "/shop",
			refusal: refusal(mallory, "remove", "shop", "/shop", noOwner, mallory),
		},
		"another removes its own": {
			caller: mallory, grants: all, change: access.RemovesInstance, service: "shop", path: "/web",
		},
		"an owner removes that of another": {
			caller: plane, grants: owners[:1], change: access.RemovesInstance, service: "shop", path: "/web",
		},
		"an owner removes that of another owner": {
			caller: plane, grants: append(all, owners[0]), change: access.RemovesInstance,
			service: "shop", path: "/deli",
			refusal: refusal(plane, "remove", "shop", "/deli", noOwner, plane),
		},
		"an owner removes in another service": {
			caller: plane, grants: owners[:1], change: access.RemovesInstance, service: "open", path: "/shop",
			refusal: refusal(plane, "remove", "open", "/shop", others, plane),
		},
	} {
		t.Run(name, func(t *testing.T) {
			rule := access.Rules()[v1.RoutingService_RegisterInstance_FullMethodName]
			id := spiffeid.RequireFromString("spiffe://eu.test" + test.path)
			c := access.Call{Method: "this", Rule: rule, Caller: root, Target: access.Target{SPIFFEID: id.String()}}
			if test.caller != "" {
				c.Caller = access.SVIDCaller(spiffeid.RequireFromString(test.caller))
			}
			for _, g := range test.grants {
				g.SpiffeId = test.caller
				c.Grants = append(c.Grants, parsed(t, g))
			}
			of, err := grant.OwnersOf(h.store.View(), test.service)
			require.NoError(t, err)
			err = access.DecideInstance(c, world, test.change, of, id)
			if test.refusal == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.refusal)
		})
	}
}

// A service belongs to no domain, so its owner is not for the administrator of one domain to choose or to remove.
func TestOwnersAreGrantedByAdministratorsOfEveryDomain(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	owner := &v1.Grant{
		Role: grant.Discovery, SpiffeId: "spiffe://eu.test/plane", TrustDomain: "eu.test", PathPrefix: "/shop",
		Services: []string{"shop", "cart", "shop"},
	}
	_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{
		Grant: &v1.Grant{Role: grant.Admin, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test"},
	})
	require.NoError(t, err)
	own := v1.NewAccessServiceClient(h.dial(t, ci))
	revoke := &v1.RevokeRoleRequest{Role: owner.GetRole(), SpiffeId: owner.GetSpiffeId(),
		TrustDomain: owner.GetTrustDomain(),
		PathPrefix:  owner.GetPathPrefix(), Services: []string{"cart", "shop"}}
	_, err = own.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: owner})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "it needs the role admin in every hosted domain")
	made, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: owner})
	require.NoError(t, err)
	require.Equal(t, []string{"cart", "shop"}, made.GetServices())
	warning := func(service string) string {
		return "service " + service + " had no owner: from now on its registered instances count only under IDs that " +
			"this grant covers; 'entente service show " + service + "' lists those that count"
	}
	require.Equal(t, []string{warning("cart"), warning("shop")}, made.GetWarnings())
	again, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: owner})
	require.NoError(t, err)
	require.Empty(t, again.GetWarnings(), "the services have an owner")
	_, err = own.RevokeRole(t.Context(), revoke)
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	_, err = admin.RevokeRole(t.Context(), revoke)
	require.NoError(t, err)

	for text, g := range map[string]*v1.Grant{
		"services are for the role discovery: leave them out for issuer": {
			Role: grant.Issuer, Services: []string{"shop"},
		},
		"services lists \"Shop\", which is not the name of a service: small letters, digits, '-', '_' and '.' are " +
			"allowed, a letter or digit first and last, 128 in all": {
			Role: grant.Discovery, Services: []string{"Shop"},
		},
		"services lists 33 names: list 32 at most, and the others in a further grant": {
			Role: grant.Discovery, Services: make([]string, 33),
		},
	} {
		g.SpiffeId = "spiffe://eu.test/plane"
		_, err := grant.Parse(g)
		require.EqualError(t, err, text)
	}
}

// The owner of a service ends with its grant, in whatever way that ends. The name of the service stays reserved until
// it has another owner or an administrator of every domain releases it.
func TestOwnersEndWithTheirGrants(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	web := spiffeid.RequireFromString("spiffe://eu.test/web")
	owner := &v1.Grant{Role: grant.Discovery, SpiffeId: "spiffe://eu.test/plane", TrustDomain: "eu.test",
		PathPrefix: "/shop", Services: []string{"shop"}}
	owners := func() grant.Owners {
		of, err := grant.OwnersOf(h.store.View(), "shop")
		require.NoError(t, err)
		return of
	}
	release := func(by v1.AccessServiceClient, service string) error {
		_, err := by.ReleaseService(t.Context(), &v1.ReleaseServiceRequest{Service: service})
		return err
	}
	revoke := &v1.RevokeRoleRequest{
		Role: owner.GetRole(), SpiffeId: owner.GetSpiffeId(), TrustDomain: owner.GetTrustDomain(),
		PathPrefix: owner.GetPathPrefix(), Services: owner.GetServices(),
	}
	for name, end := range map[string]func(tx *raftstore.Tx) error{
		"its domain is deleted": func(tx *raftstore.Tx) error {
			return grant.RevokeDomain(tx, web.TrustDomain())
		},
		"its member was compromised": func(tx *raftstore.Tx) error {
			return grant.RemoveMember(tx, h.store.MemberID(), true, time.Now())
		},
		"an administrator has revoked it": nil,
	} {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: owner})
		require.NoError(t, err)
		require.Len(t, owners().Grants, 1, name)
		require.False(t, owners().Reserved, name)
		if end != nil {
			_, err = h.store.Update(t.Context(), end)
		} else {
			_, err = admin.RevokeRole(t.Context(), revoke)
		}
		require.NoError(t, err)
		require.Empty(t, owners().Grants, name)
		require.True(t, owners().Reserved, name)
		require.False(t, owners().Cover(web), name)
		require.False(t, owners().Cover(spiffeid.RequireFromString("spiffe://eu.test/shop")), name)
	}

	second := &v1.Grant{Role: grant.Discovery, SpiffeId: "spiffe://eu.test/second", TrustDomain: "eu.test",
		PathPrefix: "/shop", Services: []string{"shop"}}
	for _, g := range []*v1.Grant{owner, second, {Role: grant.Admin, SpiffeId: "spiffe://eu.test/ci",
		TrustDomain: "eu.test"}} {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: g})
		require.NoError(t, err)
	}
	require.EqualError(t, release(admin, "shop"), "rpc error: code = FailedPrecondition desc = service shop has "+
		"owners, spiffe://eu.test/plane among them: revoke their grants first; 'entente access list' shows them")
	revoked, err := admin.RevokeRole(t.Context(), revoke)
	require.NoError(t, err)
	require.Empty(t, revoked.GetWarnings(), "it has another owner")
	require.False(t, owners().Reserved)
	revoke.SpiffeId = second.GetSpiffeId()
	revoked, err = admin.RevokeRole(t.Context(), revoke)
	require.NoError(t, err)
	require.Equal(t, []string{"service shop has no owner any more: none of its registered instances counts, and " +
		"none can be registered, until another caller is granted it or 'entente access release shop' opens the name " +
		"to every caller with the role discovery"}, revoked.GetWarnings())

	list, err := admin.ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{"shop"}, list.GetReservedServices())
	ofDomain := v1.NewAccessServiceClient(h.dial(t, ci))
	list, err = ofDomain.ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetReservedServices(), "a service belongs to no domain")
	require.ErrorContains(t, release(ofDomain, "shop"), "it needs the role admin in every hosted domain")
	require.True(t, owners().Reserved)
	dry, err := admin.ReleaseService(t.Context(), &v1.ReleaseServiceRequest{Service: "shop", DryRun: true})
	require.NoError(t, err)
	require.Equal(t, "shop", dry.GetEffects()[0].GetSubject())
	require.Equal(t, "becomes open: every caller with the role discovery can register instances of it, and instances "+
		"that did not count before count", dry.GetEffects()[0].GetDetail())
	require.True(t, owners().Reserved, "nothing was changed")
	_, err = admin.ReleaseService(t.Context(), &v1.ReleaseServiceRequest{Service: "cart", DryRun: true})
	require.ErrorContains(t, err, `no service of the name "cart" is reserved`)
	require.NoError(t, release(admin, "shop"))
	require.True(t, owners().Open())
	require.EqualError(t, release(admin, "shop"), "rpc error: code = NotFound desc = no service of the name "+
		"\"shop\" is reserved: 'entente access list' shows which are")
}

// A member of an older build would not enforce owners, so none is granted as long as there is one.
func TestOwnersWaitForOlderMembers(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	announce := func(version uint32) {
		_, err := h.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			return errors.Join(
				membership.Members.Put(tx, "eu-1", &statev1.Member{CommandVersion: raftstore.CommandVersion}),
				membership.Members.Put(tx, "eu-2", &statev1.Member{CommandVersion: version}),
			)
		})
		require.NoError(t, err)
	}
	give := func(services ...string) error {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{
			Role: grant.Discovery, SpiffeId: "spiffe://eu.test/plane", Services: services,
		}})
		return err
	}
	announce(raftstore.OwnersVersion - 1)
	require.NoError(t, give(), "a grant without services is as before")
	require.EqualError(t, give("shop"), "rpc error: code = FailedPrecondition desc = member eu-2 runs a build "+
		"that would not enforce the owners of services: upgrade it, or wait until it has announced its new version, "+
		"and grant the role again")
	announce(raftstore.OwnersVersion)
	require.NoError(t, give("shop"))
}
