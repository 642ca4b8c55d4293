package registry

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/routingtest"
)

// guarded is a member behind a guard.
type guarded struct {
	*member
	guard *access.Guard
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	m := newMember(t)
	m.Tracker.Reset()
	return &guarded{m, routingtest.NewGuard(t, m.store)}
}

// as returns the client of a caller.
func (g *guarded) as(t *testing.T, caller access.Caller) ententev1.RoutingServiceClient {
	t.Helper()
	return ententev1.NewRoutingServiceClient(routingtest.DialGuarded(t, g.guard, g.service, caller))
}

// replaceAs replaces all of the service shop.
func (g *guarded) replaceAs(t *testing.T, caller access.Caller, list ...*ententev1.Instance) error {
	t.Helper()
	stream, err := g.as(t, caller).ReplaceInstances(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&ententev1.ReplaceInstancesRequest{
		Target: &ententev1.ReplaceTarget{Service: "shop"}, Instances: list,
	}))
	_, err = stream.CloseAndRecv()
	return err
}

// ids returns the SPIFFE IDs of the instances of the service shop that count.
func (g *guarded) ids(t *testing.T) string {
	t.Helper()
	s, err := g.Catalog.Service(g.store.View(), "shop")
	require.NoError(t, err)
	var ids []string
	for _, i := range s.Instances {
		ids = append(ids, i.ID.TrustDomain().Name()+i.ID.Path())
	}
	list, err := List(g.store.View())
	require.NoError(t, err)
	require.Len(t, list, len(ids), "the list of all services differs from the service")
	return strings.Join(ids, " ")
}

func located(address, id string) *ententev1.Instance {
	i := routingtest.Registration()
	i.Address, i.SpiffeId = address, "spiffe://"+id
	return i
}

func discovery(id, path string, services ...string) *ententev1.Grant {
	td := spiffeid.RequireFromString("spiffe://" + id).TrustDomain().Name()
	return &ententev1.Grant{
		Role: grant.Discovery, SpiffeId: "spiffe://" + id, TrustDomain: td, PathPrefix: path, Services: services,
	}
}

const notMallory = "spiffe://eu.example.org/mallory may not register instances of shop under " +
	"spiffe://eu.example.org/web: the service has owners, and the caller is none for that ID. To allow it, an " +
	"administrator runs: entente access grant discovery --spiffe-id spiffe://eu.example.org/mallory " +
	"--domain eu.example.org --path /web --service shop"

// TestOwnersOfAService: a caller with the role discovery registers an instance under the service of another team. Once
// the service has an owner, this instance does not count, and no further one is registered, as long as the owner's
// grant stands.
func TestOwnersOfAService(t *testing.T) {
	g := newGuarded(t)
	mallory, plane := g.as(t, routingtest.Mallory), g.as(t, routingtest.Plane)
	register := func(c ententev1.RoutingServiceClient, i *ententev1.Instance) error {
		_, err := c.RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{Instance: i})
		return err
	}
	remove := func(c ententev1.RoutingServiceClient, address string) error {
		_, err := c.DeregisterInstance(t.Context(), &ententev1.DeregisterInstanceRequest{
			Service: "shop", Address: address,
		})
		return err
	}
	routingtest.Grant(t, g.guard, discovery("eu.example.org/mallory", "/web"))
	squats := []*ententev1.Instance{
		located("10.0.0.1:443", "eu.example.org/web"), located("10.0.0.2:443", "eu.example.org/web"),
		located("10.0.0.3:443", "eu.example.org/web"),
	}
	for _, squat := range squats {
		require.NoError(t, register(mallory, squat), "a service without owners is open")
	}
	require.Equal(t, "eu.example.org/web eu.example.org/web eu.example.org/web", g.ids(t))

	owner := discovery("eu.example.org/plane", "/shop", "shop")
	routingtest.Grant(t, g.guard, owner)
	require.Empty(t, g.ids(t))
	shown, err := g.GetService(routingtest.Admin(t), &ententev1.GetServiceRequest{Name: "shop"})
	require.NoError(t, err)
	listed, err := g.ListServices(routingtest.Admin(t), &ententev1.ListServicesRequest{})
	require.NoError(t, err)
	require.Len(t, listed.GetServices(), 1)
	for _, service := range []*ententev1.Service{shown, listed.GetServices()[0]} {
		require.Len(t, service.GetInstances(), 3)
		for _, i := range service.GetInstances() {
			require.True(t, i.GetDisowned(), "%v", i)
		}
	}
	require.Zero(t, len(g.plan(t, "shop", plan.Locality{Region: "eu", Zone: "a"}).Excluded), "no hint shows it")
	routingtest.Refused(t, register(mallory, squats[0]), codes.PermissionDenied, notMallory)
	routingtest.Refused(t, g.replaceAs(t, routingtest.Mallory, squats[0]), codes.InvalidArgument,
		"nothing was replaced, because 1 of 1 instances are rejected: instance 0: "+notMallory)
	_, err = g.RegisterInstance(routingtest.Admin(t), &ententev1.RegisterInstanceRequest{Instance: squats[0]})
	routingtest.Refused(t, err, codes.PermissionDenied, "admin socket (uid 0, pid 1) may not register instances of "+
		"shop under spiffe://eu.example.org/web: the service has owners, and its instances count only under IDs of "+
		"their grants")

	own := located("10.0.0.1:443", "eu.example.org/shop/a")
	require.NoError(t, register(plane, own), "an owner takes an address that an instance occupies which does not count")
	require.Equal(t, "eu.example.org/shop/a", g.ids(t))
	own.Service = "cart"
	routingtest.Refused(t, register(plane, own), codes.PermissionDenied, "spiffe://eu.example.org/plane may not "+
		"register instances of cart under spiffe://eu.example.org/shop/a: the caller has the role discovery for other "+
		"services alone. To allow it, an administrator runs: entente access grant discovery --spiffe-id "+
		"spiffe://eu.example.org/plane --domain eu.example.org --path /shop/a --service cart")
	own.Service = "shop"

	// What does not count is removed by who registered it, and replaced by the owner. The owner's own is not.
	routingtest.Grant(t, g.guard, discovery("eu.example.org/mallory", ""))
	routingtest.Refused(t, remove(mallory, "10.0.0.1:443"), codes.PermissionDenied, "spiffe://eu.example.org/mallory "+
		"may not remove instances of shop under spiffe://eu.example.org/shop/a: the service has owners")
	routingtest.Refused(t, g.replaceAs(t, routingtest.Mallory), codes.PermissionDenied,
		"may not remove instances of shop")
	require.NoError(t, remove(mallory, "10.0.0.2:443"))
	require.NoError(t, g.replaceAs(t, routingtest.Plane, own))
	rows, err := Instances.List(g.store.View(), "shop/")
	require.NoError(t, err)
	require.Len(t, rows, 1)

	// Owners outlive instances.
	require.NoError(t, g.replaceAs(t, routingtest.Plane))
	require.Empty(t, g.ids(t))
	routingtest.Refused(t, register(mallory, squats[0]), codes.PermissionDenied, notMallory)

	// Of two owners, one is revoked: its instances count no more. Without any, the name is reserved until it is
	// released.
	routingtest.Grant(t, g.guard, discovery("eu.example.org/second", "/second", "shop"))
	require.NoError(t, register(plane, own))
	second := g.as(t, access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.example.org/second")))
	require.NoError(t, register(second, located("10.0.0.9:443", "eu.example.org/second")))
	require.Equal(t, "eu.example.org/shop/a eu.example.org/second", g.ids(t))
	g.revoke(t, owner)
	require.Equal(t, "eu.example.org/second", g.ids(t))
	routingtest.Refused(t, register(mallory, squats[0]), codes.PermissionDenied, notMallory)
	routingtest.Refused(t, register(plane, own), codes.PermissionDenied, "it needs the role discovery")
	g.revoke(t, discovery("eu.example.org/second", "/second", "shop"))
	require.Empty(t, g.ids(t))
	const reserved = "the service had owners, and its name is reserved until it has another or is released " +
		"('entente access release')"
	routingtest.Refused(t, register(mallory, squats[1]), codes.PermissionDenied, reserved)
	routingtest.Refused(t, g.replaceAs(t, routingtest.Mallory, squats[1]), codes.InvalidArgument, reserved)
	_, err = g.RegisterInstance(routingtest.Admin(t), &ententev1.RegisterInstanceRequest{Instance: squats[0]})
	routingtest.Refused(t, err, codes.PermissionDenied, reserved)
	require.NoError(t, remove(mallory, "10.0.0.9:443"), "who may register an ID may remove it")
	client := ententev1.NewAccessServiceClient(routingtest.DialGuarded(t, g.guard, nil, routingtest.Local))
	_, err = client.ReleaseService(t.Context(), &ententev1.ReleaseServiceRequest{Service: "shop"})
	require.NoError(t, err)
	require.NoError(t, register(mallory, squats[1]))
}

// TestUnseenInstances: a caller that may not replace or remove an instance does not learn of whom it is, if it has no
// grant in that domain.
func TestUnseenInstances(t *testing.T) {
	g := newGuarded(t)
	_, err := g.RegisterInstance(routingtest.Admin(t), &ententev1.RegisterInstanceRequest{
		Instance: located("10.0.0.1:443", "eu.example.org/secret"),
	})
	require.NoError(t, err)
	const unseen = "spiffe://eu.example.org/mallory may not replace or remove an instance of shop: it has an ID in a " +
		"trust domain that the caller does not see"
	attempt := func(see string, exact bool) {
		t.Helper()
		mallory := g.as(t, routingtest.Mallory)
		_, register := mallory.RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{
			Instance: located("10.0.0.1:443", "us.example.org/web"),
		})
		_, remove := mallory.DeregisterInstance(t.Context(), &ententev1.DeregisterInstanceRequest{
			Service: "shop", Address: "10.0.0.1:443",
		})
		for _, err := range []error{register, remove, g.replaceAs(t, routingtest.Mallory)} {
			routingtest.Refused(t, err, codes.PermissionDenied, see)
			require.NotEqual(t, exact, strings.Contains(err.Error(), "/secret"), "%v", err)
		}
	}
	foreign := discovery("eu.example.org/mallory", "/web")
	foreign.TrustDomain = "us.example.org"
	routingtest.Grant(t, g.guard, foreign)
	attempt(unseen, true)
	routingtest.Grant(t, g.guard, discovery("eu.example.org/mallory", "/web"))
	attempt("spiffe://eu.example.org/mallory may not call", false)
}

func (g *guarded) revoke(t *testing.T, m *ententev1.Grant) {
	t.Helper()
	client := ententev1.NewAccessServiceClient(routingtest.DialGuarded(t, g.guard, nil, routingtest.Local))
	_, err := client.RevokeRole(t.Context(), &ententev1.RevokeRoleRequest{
		Role: m.GetRole(), SpiffeId: m.GetSpiffeId(), TrustDomain: m.GetTrustDomain(), PathPrefix: m.GetPathPrefix(),
		Services: m.GetServices(),
	})
	require.NoError(t, err)
}

// TestLeaseFromBeforeTheOwner: a lease that is held from before the service had an owner gives its holder nothing.
func TestLeaseFromBeforeTheOwner(t *testing.T) {
	g := newGuarded(t)
	routingtest.Grant(t, g.guard, discovery("eu.example.org/mallory", "/web"))
	mallory := g.as(t, routingtest.Mallory)
	stream, err := mallory.KeepLease(t.Context())
	require.NoError(t, err)
	h := &holderClient{t: t, stream: stream}
	opened, err := h.send(&ententev1.KeepLeaseRequest{Open: tenSeconds()})
	require.NoError(t, err)
	squat := located("10.0.0.1:443", "eu.example.org/web")
	squat.Lease = opened.GetSecret()
	_, err = mallory.RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{Instance: squat})
	require.NoError(t, err)
	require.Equal(t, "eu.example.org/web", g.ids(t))

	routingtest.Grant(t, g.guard, discovery("eu.example.org/plane", "/shop", "shop"))
	require.Empty(t, g.ids(t))
	_, err = mallory.RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{Instance: squat})
	routingtest.Refused(t, err, codes.PermissionDenied, notMallory)
	_, err = h.send(&ententev1.KeepLeaseRequest{Health: []*ententev1.HealthChange{
		{Service: "shop", Address: "10.0.0.1:443", Health: ententev1.Health_HEALTH_DEGRADED},
	}})
	routingtest.Refused(t, err, codes.PermissionDenied, notMallory)
	require.Empty(t, g.ids(t))
}

// TestForeignOwner: the workload of a foreign domain owns a service. It registers itself, and nothing counts beside it
// but what is imported, which follows the list of imports.
func TestForeignOwner(t *testing.T) {
	g := newGuarded(t)
	web := g.as(t, access.SVIDCaller(spiffeid.RequireFromString("spiffe://us.example.org/web")))
	routingtest.Grant(t, g.guard, discovery("eu.example.org/mallory", ""),
		discovery("us.example.org/web", "/web", "shop"))
	_, err := web.RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{
		Instance: located("10.0.0.1:443", "us.example.org/web"),
	})
	require.NoError(t, err)
	for id, text := range map[string]string{
		"us.example.org/db":  "has discovery in us.example.org below /web for services shop",
		"eu.example.org/web": "in eu.example.org for the path /web",
	} {
		_, err = web.RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{
			Instance: located("10.0.0.2:443", id),
		})
		routingtest.Refused(t, err, codes.PermissionDenied, text)
	}
	_, err = g.as(t, routingtest.Mallory).RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{
		Instance: located("10.0.0.2:443", "eu.example.org/web"),
	})
	routingtest.Refused(t, err, codes.PermissionDenied, notMallory)

	const from = "ap.example.org"
	_, err = g.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		key := ImportKey("shop", from)
		if err := Imports.Put(tx, key, &statev1.ServiceImport{Id: "1"}); err != nil {
			return err
		}
		return ImportedSets.Put(tx, key, &statev1.ImportedSet{Import: "1", Digest: []byte{1}})
	})
	require.NoError(t, err)
	imported, err := ParseInstance(located("10.0.0.9:443", from+"/shop"))
	require.NoError(t, err)
	_, err = g.Registry.Replacer.ReplaceImported(t.Context(), from, map[string][]Instance{"shop": {imported}},
		func(*raftstore.Tx) error { return nil })
	require.NoError(t, err)
	require.Equal(t, "us.example.org/web ap.example.org/shop", g.ids(t))
}

// TestOwnerDuringAReplacement: a service gets an owner while a large replacement of its instances is being staged.
func TestOwnerDuringAReplacement(t *testing.T) {
	g, ctx := newGuarded(t), routingtest.Admin(t)
	u, err := g.Registry.Replacer.newUpload(ctx, &ententev1.ReplaceTarget{Service: "shop"})
	require.NoError(t, err)
	require.NoError(t, u.add(ctx, []*ententev1.Instance{located("10.0.0.1:443", "eu.example.org/web")}))
	require.NoError(t, u.rejection())
	view := g.store.View()
	differences, err := u.compare(ctx, view)
	require.NoError(t, err)
	routingtest.Grant(t, g.guard, discovery("eu.example.org/plane", "/shop", "shop"))
	for name, replace := range map[string]func() error{
		"staged":   func() error { _, err := u.staged(ctx, view, differences); return err },
		"in place": func() error { _, err := u.inPlace(ctx); return err },
	} {
		require.ErrorContains(t, replace(), "admin socket (uid 0, pid 1) may not register instances of shop under "+
			"spiffe://eu.example.org/web: the service has owners, and its instances count only under IDs of "+
			"their grants", name)
	}
	require.Empty(t, g.ids(t))
}

// TestOwnedServiceNames: the services of a grant are named as services are.
func TestOwnedServiceNames(t *testing.T) {
	for _, name := range []string{
		"shop", "a", "shop.eu-1_x", "0", strings.Repeat("a", 128), "", "Shop", "-a", "a.", "a/b", "a b", "a\n", "ä",
		strings.Repeat("a", 129),
	} {
		_, err := grant.Parse(discovery("eu.example.org/plane", "", name))
		require.Equal(t, plan.CheckServiceName(name) == nil, err == nil, "%q: %v", name, err)
	}
}
