package registry

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/routingtest"
	"github.com/ententehq/entente/trust/standing"
)

// member is the registry of one member, on a store of its own.
type member struct {
	*Registry
	service
	clock *routingtest.Clock
	audit *routingtest.AuditLog
	reg   *prometheus.Registry
}

// service serves the calls of this package.
type service struct {
	unimplemented
	*Registrar
	*Replacer
	*LeaseKeeper
}

type unimplemented struct {
	ententev1.UnimplementedRoutingServiceServer
}

func newMember(t testing.TB) *member {
	t.Helper()
	m := &member{clock: routingtest.NewClock(), audit: &routingtest.AuditLog{}, reg: prometheus.NewRegistry()}
	r, err := New(Config{
		Store: raftstoretest.New(
			t,
		), Audit: m.audit, Registerer: m.reg, Now: m.clock.Now, LastContact: m.clock.LastContact,
	})
	require.NoError(t, err)
	m.Registry, m.service = r, service{Registrar: r.Registrar, Replacer: r.Replacer, LeaseKeeper: r.Leases}
	return m
}

func (m *member) dial(t testing.TB, caller access.Caller) ententev1.RoutingServiceClient {
	return routingtest.Dial(t, m.service, caller)
}

// plan returns the plan for callers who trust all domains.
func (m *member) plan(t testing.TB, service string, caller plan.Locality) plan.Plan {
	t.Helper()
	s, err := m.Catalog.Service(m.store.View(), service)
	require.NoError(t, err)
	endpoints := make([]plan.Endpoint, len(s.Instances))
	for i, instance := range s.Instances {
		endpoints[i] = instance.Endpoint
		endpoints[i].Trust = standing.Fresh
	}
	return plan.DefaultPolicy().Plan(caller, endpoints)
}

func (m *member) register(ctx context.Context, i *ententev1.Instance) (*ententev1.Instance, error) {
	return m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
}

// Of calls that remove an instance at once one succeeds, and the others find nothing.
func TestDeregisterAtOnce(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	for range 50 {
		_, err := m.register(ctx, routingtest.Registration())
		require.NoError(t, err)
		var group sync.WaitGroup
		var removed, absent atomic.Int32
		for range 4 {
			group.Go(func() {
				_, err := m.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
					Service: "shop", Address: "10.0.0.1:443",
				})
				switch status.Code(err) {
				case codes.OK:
					removed.Add(1)
				case codes.NotFound:
					absent.Add(1)
				}
			})
		}
		group.Wait()
		require.EqualValues(t, 1, removed.Load())
		require.EqualValues(t, 3, absent.Load())
	}
}

func TestRegisterAndDeregister(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	first, err := m.register(ctx, routingtest.Registration())
	require.NoError(t, err)
	require.Empty(t, first.GetLease())
	require.EqualValues(t, 1, first.GetWeight())
	require.Equal(t, ententev1.Health_HEALTH_HEALTHY, first.GetHealth())
	require.Equal(t, routingtest.Epoch, first.GetRegisterTime().AsTime())
	m.clock.Pass(countEvery)
	again, err := m.register(ctx, routingtest.Registration())
	require.NoError(t, err)
	require.Equal(t, first.GetRevision(), again.GetRevision(), "an equal registration was written")
	change := routingtest.Registration()
	change.Weight = 7
	changed, err := m.register(ctx, change)
	require.NoError(t, err)
	require.EqualValues(t, 7, changed.GetWeight())
	require.EqualValues(t, 1, testutil.ToFloat64(gauge(t, m.reg, "entente_routing_instances")))

	request := &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1:443"}
	gone, err := m.DeregisterInstance(ctx, request)
	require.NoError(t, err)
	require.NotZero(t, gone.GetRevision())
	_, err = m.DeregisterInstance(ctx, request)
	routingtest.Refused(
		t,
		err,
		codes.NotFound,
		"service shop has no instance at 10.0.0.1:443; 'entente service show shop' lists the addresses "+
			"of its instances",
	)
	_, err = m.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
	routingtest.Refused(
		t,
		err,
		codes.NotFound,
		"service shop has no instance; register one with: entente service register shop …",
	)
}

// gauge returns a collector of the present value of a registered gauge.
func gauge(t *testing.T, reg *prometheus.Registry, name string) prometheus.Collector {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			value := f.GetMetric()[0].GetGauge().GetValue()
			return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name}, func() float64 { return value })
		}
	}
	t.Fatalf("there is no metric %s", name)
	return nil
}

// TestOthersInstances: a caller that may register one identity can neither take the address of another one's instance
// nor remove it.
func TestOthersInstances(t *testing.T) {
	m := newMember(t)
	_, err := m.register(routingtest.Admin(t), routingtest.Registration())
	require.NoError(t, err)
	other := access.WithCaller(t.Context(), routingtest.Mallory)
	const unseen = "spiffe://eu.example.org/mallory may not replace or remove an instance of shop"
	_, err = m.register(other, routingtest.Registration())
	routingtest.Refused(t, err, codes.PermissionDenied, "spiffe://eu.example.org/mallory may not call this")
	_, err = m.DeregisterInstance(other, &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1:443"})
	routingtest.Refused(t, err, codes.PermissionDenied, unseen)
}

func TestServiceIsBounded(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	i, err := ParseInstance(routingtest.Registration())
	require.NoError(t, err)
	_, err = m.store.Update(ctx, func(tx *raftstore.Tx) error {
		for n := range MaxInstances {
			i.Address = netip.AddrPortFrom(i.Address.Addr(), uint16(n+1))
			if err := Instances.Put(tx, i.Key(), i.Row()); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	one := routingtest.Registration()
	one.Address = "10.9.9.9:443"
	_, err = m.register(ctx, one)
	routingtest.Refused(
		t,
		err,
		codes.ResourceExhausted,
		"service shop has 4000 instances, and 1 more would exceed the limit of 4000; deregister some, "+
			"or split it into two services",
	)
	one.Address = "10.0.0.1:1"
	_, err = m.register(ctx, one)
	require.NoError(t, err, "an existing instance is replaced")
}

// TestAffected lists the services that each kind of change affects.
func TestAffected(t *testing.T) {
	m := newMember(t)
	_, err := m.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		for _, of := range []set{{"shop", "1234"}, {"cart", "1234"}, {"other", "5678"}} {
			if err := of.index(tx); err != nil {
				return err
			}
		}
		for _, key := range []string{ImportKey("shop", "us.example.org"), ImportKey("cart", "ap.example.org")} {
			if err := ImportedSets.Put(tx, key, &statev1.ImportedSet{}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	for _, test := range []struct {
		table, key string
		want       []string
		known      bool
	}{
		{Instances.Name(), "shop/-/0/10.0.0.1:80", []string{"shop"}, true},
		{Sets.Name(), "shop/-", []string{"shop"}, true},
		{Leases.Name(), "1234", []string{"cart", "shop"}, true},
		{Leases.Name(), "9999", nil, true},
		{ImportSources.Name(), "us.example.org", []string{"shop"}, true},
		{"service_owners", "shop/spiffe://eu.example.org/plane|discovery||", []string{"shop"}, true},
		{"another_table", "us.example.org", nil, false},
	} {
		got, known := Affected(m.store.View(), raftstore.Change{Table: test.table, Key: test.key})
		require.Equal(t, test.known, known, "%s %s", test.table, test.key)
		require.Equal(t, test.want, got, "%s %s", test.table, test.key)
		for _, watched := range [][]raftstore.Prefix{Prefixes(), PrefixesOf("shop")} {
			require.Equal(t, test.known, slices.ContainsFunc(watched, func(p raftstore.Prefix) bool {
				return p.Table == test.table
			}), "%s is followed as far as it affects services", test.table)
		}
	}
}
