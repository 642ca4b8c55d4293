package exchange

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/routingtest"
	"github.com/ententehq/entente/trust/standing"
)

// agreementTable stands for the relationships. The key of a row is the foreign domain, its service is the home domain
// of the peer, its weight is 0 if the agreement is in force, and its register time is when the agreement was made.
var agreementTable = raftstore.NewTable[*statev1.Instance]("routing_test_agreements")

// tableAgreements are the agreements of a cluster that hosts a domain and the domains below it.
type tableAgreements struct{ hosted string }

func (a tableAgreements) Hosted(_ raftstore.Reader, td string) (bool, error) {
	return strings.HasSuffix(td, a.hosted), nil
}

func (tableAgreements) With(r raftstore.Reader, td string) (Agreement, bool, error) {
	row, found, err := agreementTable.Get(r, td)
	if err != nil || !found {
		return Agreement{}, false, err
	}
	return Agreement{
		Since: row.Value.GetRegisterTime().AsTime(), InForce: row.Value.GetWeight() == 0, Peer: row.Value.GetService(),
	}, true, nil
}

// member is the only member of a cluster, with a registry and an exchange.
type member struct {
	*Exchange
	service
	registry *registry.Registry
	clock    *routingtest.Clock
	audit    *routingtest.AuditLog
	metrics  *metrics
}

// service serves the calls of this package and of the registry.
type service struct {
	unimplemented
	*registry.Registrar
	*registry.Replacer
	*registry.LeaseKeeper
	*ExportServer
	*ImportServer
}

type unimplemented struct {
	ententev1.UnimplementedRoutingServiceServer
}

// newMember returns the member of a cluster that hosts a domain.
func newMember(t testing.TB, hosted string) *member {
	t.Helper()
	m := &member{clock: routingtest.NewClock(), audit: &routingtest.AuditLog{}}
	m.build(t, tableAgreements{hosted}, m.clock)
	return m
}

// build makes the parts. Without a clock they use the real time.
func (m *member) build(t testing.TB, agreements Agreements, clock *routingtest.Clock) {
	t.Helper()
	var now, contact func() time.Time
	if clock != nil {
		now, contact = clock.Now, clock.LastContact
	}
	store := raftstoretest.New(t)
	r, err := registry.New(registry.Config{Store: store, Audit: m.audit, Now: now, LastContact: contact})
	require.NoError(t, err)
	x, err := New(Config{
		Store: store, Registry: r, Audit: m.audit, Agreements: agreements, Now: now, LastContact: contact,
	})
	require.NoError(t, err)
	m.Exchange, m.registry, m.metrics = x, r, x.sweeper.metrics
	m.service = service{
		Registrar: r.Registrar, Replacer: r.Replacer, LeaseKeeper: r.Leases, ExportServer: x.Exports,
		ImportServer: x.Imports,
	}
}

// run runs the loops of a member until the test ends.
func (m *member) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.registry.Run(ctx) })
	g.Go(func() error { return m.Run(ctx) })
	t.Cleanup(func() { cancel(); require.ErrorIs(t, g.Wait(), context.Canceled) })
}

// hint returns the hint for callers beside the instances, who trust all domains.
func (m *member) hint(t testing.TB, service string) *ententev1.Hint {
	t.Helper()
	s, err := m.registry.Catalog.Service(m.store.View(), service)
	require.NoError(t, err)
	endpoints := make([]plan.Endpoint, len(s.Instances))
	for i, instance := range s.Instances {
		endpoints[i] = instance.Endpoint
		endpoints[i].Trust = standing.Fresh
	}
	caller := plan.Locality{Region: "eu", Zone: "a"}
	return plan.DefaultPolicy().Plan(caller, endpoints).Hint(service, caller, 1)
}

// agree writes an agreement.
func (m *member) agree(t testing.TB, td, peer string, since time.Time, inForce bool) {
	t.Helper()
	row := &statev1.Instance{Service: peer, RegisterTime: timestamppb.New(since)}
	if !inForce {
		row.Weight = 1
	}
	_, err := m.store.Update(t.Context(), func(tx *raftstore.Tx) error { return agreementTable.Put(tx, td, row) })
	require.NoError(t, err)
}

// newExporter returns the member of a cluster that hosts eu.example.org and has an agreement with us.example.org.
func newExporter(t testing.TB) *member {
	t.Helper()
	m := newMember(t, "eu.example.org")
	m.agree(t, "us.example.org", "us.example.org", routingtest.Epoch, true)
	return m
}

// newPair returns running members of two clusters, eu.example.org and us.example.org, that have an agreement.
func newPair(t testing.TB) (eu, us *member) {
	t.Helper()
	eu, us = newExporter(t), newMember(t, "us.example.org")
	us.agree(t, "eu.example.org", "eu.example.org", routingtest.Epoch, true)
	eu.run(t)
	us.run(t)
	return eu, us
}

func (m *member) register(t testing.TB, service, address string, health ententev1.Health) {
	t.Helper()
	i := routingtest.Registration()
	i.Service, i.Address, i.Health = service, address, health
	m.registerInstance(t, i)
}

func (m *member) registerInstance(t testing.TB, i *ententev1.Instance) {
	t.Helper()
	_, err := m.RegisterInstance(routingtest.Admin(t), &ententev1.RegisterInstanceRequest{Instance: i})
	require.NoError(t, err)
}

func (m *member) exports(t testing.TB, e *ententev1.ServiceExport) {
	t.Helper()
	_, err := m.ExportService(routingtest.Admin(t), &ententev1.ExportServiceRequest{Export: e})
	require.NoError(t, err)
}

func (m *member) imports(t testing.TB, name, from, as string) {
	t.Helper()
	_, err := m.ImportService(routingtest.Admin(t), &ententev1.ImportServiceRequest{
		Import: &ententev1.ServiceImport{Name: name, From: from, Service: as},
	})
	require.NoError(t, err)
}

// imported returns the listed import of a service, or an empty one.
func (m *member) imported(t testing.TB, service, from string) *ententev1.ServiceImport {
	t.Helper()
	list, err := m.ListServiceImports(routingtest.Admin(t), &ententev1.ListServiceImportsRequest{})
	require.NoError(t, err)
	for _, i := range list.GetImports() {
		if i.GetService() == service && i.GetFrom() == from {
			return i
		}
	}
	return &ententev1.ServiceImport{}
}

// instances returns the instances of a service, by address.
func (m *member) instances(t testing.TB, service string) map[string]*ententev1.Instance {
	t.Helper()
	byAddress := make(map[string]*ententev1.Instance)
	s, err := m.GetService(routingtest.Admin(t), &ententev1.GetServiceRequest{Name: service})
	if err != nil {
		return byAddress
	}
	for _, i := range s.GetInstances() {
		byAddress[i.GetAddress()] = i
	}
	return byAddress
}

// replace makes the given instances those of shop.
func (m *member) replace(t testing.TB, list []*ententev1.Instance) {
	t.Helper()
	stream, err := routingtest.Dial(t, m.service, routingtest.Local).ReplaceInstances(t.Context())
	require.NoError(t, err)
	target := &ententev1.ReplaceTarget{Service: "shop"}
	for len(list) > 0 || target != nil {
		n := min(len(list), 1000)
		require.NoError(t, stream.Send(&ententev1.ReplaceInstancesRequest{Target: target, Instances: list[:n]}))
		list, target = list[n:], nil
	}
	_, err = stream.CloseAndRecv()
	require.NoError(t, err)
}

func export(service, to string) *ententev1.ServiceExport {
	return &ententev1.ServiceExport{Service: service, To: to}
}

func peerInstanceWith(change func(*ententev1.PeerInstance)) *ententev1.PeerInstance {
	i := &ententev1.PeerInstance{
		Address: "10.0.0.1:443", Locality: &ententev1.Locality{Region: "eu", Zone: "a"},
		SpiffeId: "spiffe://eu.example.org/shop", Weight: 1, Health: ententev1.Health_HEALTH_HEALTHY,
	}
	if change != nil {
		change(i)
	}
	return i
}
