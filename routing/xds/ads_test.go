package xds_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/grant"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/routing"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/routingtest"
	"github.com/ententehq/entente/routing/xds"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

// timeout bounds every wait.
const timeout = 30 * time.Second

var eu = spiffeid.RequireTrustDomainFromString("eu.example.org")

// everybody trusts all domains.
type everybody struct{}

func (everybody) State(raftstore.Reader, spiffeid.TrustDomain) (standing.State, error) {
	return standing.Fresh, nil
}
func (everybody) Prefixes() []raftstore.Prefix { return nil }

type noAudit struct{}

func (noAudit) Record(audit.Event) error { return nil }

// fixture is a cache on a real store and a real routing manager, served over gRPC. The header "sees" has the trust
// domains that a caller sees, separated by spaces. Without it, the caller sees all.
type fixture struct {
	t       testing.TB
	store   *raftstore.Store
	manager *countedPlans
	conn    *grpc.ClientConn
}

// countedPlans is a manager that counts how often each service is planned.
type countedPlans struct {
	*routing.Manager
	mu    sync.Mutex
	plans map[string]int
}

func (l *countedPlans) PlanFor(
	r raftstore.Reader,
	service string,
	caller plan.Locality,
	sees func(spiffeid.TrustDomain) bool,
) (plan.Plan, *plan.Policy, error) {
	l.mu.Lock()
	l.plans[service]++
	l.mu.Unlock()
	return l.Manager.PlanFor(r, service, caller, sees)
}

// since returns the counts and resets them.
func (l *countedPlans) since() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.plans
	l.plans = map[string]int{}
	return out
}

func newFixture(t testing.TB, options ...grpc.ServerOption) *fixture {
	t.Helper()
	store := raftstoretest.New(t)
	manager, err := routing.New(routing.Config{Store: store, Trust: everybody{}, Audit: noAudit{}})
	require.NoError(t, err)
	counted := &countedPlans{Manager: manager, plans: map[string]int{}}
	cache, err := xds.NewCache(xds.Config{
		Store: store, Source: counted, Home: eu, Region: "eu",
		Hosts: func(_ raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return td == eu, nil },
		Roots: func(raftstore.Reader) ([]trust.Roots, error) {
			return []trust.Roots{
				{TrustDomain: spiffeid.RequireTrustDomainFromString("us.example.org")},
				{TrustDomain: eu},
			}, nil
		},
		Scope: func(ctx context.Context) access.Scope {
			md, _ := metadata.FromIncomingContext(ctx)
			if len(md["sees"]) == 0 {
				return access.NewScope("everything", func(spiffeid.TrustDomain) bool { return true })
			}
			sees := strings.Fields(md["sees"][0])
			return access.NewScope(
				md["sees"][0],
				func(td spiffeid.TrustDomain) bool { return slices.Contains(sees, td.Name()) },
			)
		},
	})
	require.NoError(t, err)
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(options...)
	cache.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = cache.Run(ctx) })
	running.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient(
		"passthrough:///fixture",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) },
		),
	)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		cancel()
		running.Wait()
	})
	return &fixture{t: t, store: store, manager: counted, conn: conn}
}

// put registers an instance: "shop 1 eu/a healthy".
func (r *fixture) put(line string) {
	r.t.Helper()
	f := strings.Fields(line)
	at, err := plan.ParseLocality(f[2])
	require.NoError(r.t, err)
	health := map[string]plan.Health{
		"healthy": plan.Healthy, "degraded": plan.Degraded, "unhealthy": plan.Unhealthy, "draining": plan.Draining,
	}[f[3]]
	i := registry.Instance{Service: f[0], Reported: health, Endpoint: plan.Endpoint{
		Address: netip.MustParseAddrPort("10.0.0." + f[1] + ":80"), Locality: at, Weight: 1, Health: health,
		ID: spiffeid.RequireFromString("spiffe://" + at.Region + ".example.org/" + f[0]),
	}}
	_, err = r.store.Update(
		r.t.Context(),
		func(tx *raftstore.Tx) error { return registry.Instances.Put(tx, i.Key(), i.Row()) },
	)
	require.NoError(r.t, err)
}

func (r *fixture) remove(service, last string) {
	r.t.Helper()
	i := registry.Instance{
		Service:  service,
		Endpoint: plan.Endpoint{Address: netip.MustParseAddrPort("10.0.0." + last + ":80")},
	}
	_, err := r.store.Update(
		r.t.Context(),
		func(tx *raftstore.Tx) error { return registry.Instances.Delete(tx, i.Key()) },
	)
	require.NoError(r.t, err)
}

// node returns the node of a kind of client.
func node(kind, locality string) *core.Node {
	region, zone, _ := strings.Cut(locality, "/")
	n := &core.Node{Id: "test", UserAgentName: "envoy", Locality: &core.Locality{Region: region, Zone: zone}}
	if kind != "envoy" {
		n.UserAgentName, n.ClientFeatures = "gRPC Go", []string{"envoy.lb.does_not_support_overprovisioning"}
	}
	if kind == "node" {
		n.UserAgentName = "gRPC Node Pure JS"
	}
	return n
}

// stream is a raw state-of-the-world stream.
type stream struct {
	t      testing.TB
	node   *core.Node
	stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	got    chan *discovery.DiscoveryResponse
	names  map[string][]string
}

func (r *fixture) open(n *core.Node, header ...string) *stream {
	r.t.Helper()
	ctx := metadata.AppendToOutgoingContext(r.t.Context(), header...)
	s, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).StreamAggregatedResources(ctx)
	require.NoError(r.t, err)
	out := &stream{
		t:      r.t,
		node:   n,
		stream: s,
		got:    make(chan *discovery.DiscoveryResponse, 16),
		names:  map[string][]string{},
	}
	go func() {
		for {
			m, err := s.Recv()
			if err != nil {
				close(out.got)
				return
			}
			out.got <- m
		}
	}()
	return out
}

// subscribe subscribes to resources of a type. Only the first request has the node.
func (s *stream) subscribe(of xds.Type, names ...string) {
	s.t.Helper()
	s.names[string(of)] = names
	require.NoError(
		s.t,
		s.stream.Send(&discovery.DiscoveryRequest{Node: s.node, TypeUrl: string(of), ResourceNames: names}),
	)
	s.node = nil
}

// next waits for the next response, and acknowledges it.
func (s *stream) next(of xds.Type) *discovery.DiscoveryResponse {
	s.t.Helper()
	m := s.unacknowledged(of)
	s.acknowledge(m)
	return m
}

func (s *stream) unacknowledged(of xds.Type) *discovery.DiscoveryResponse {
	s.t.Helper()
	select {
	case m, ok := <-s.got:
		require.True(s.t, ok, "the stream has ended")
		require.Equal(s.t, string(of), m.GetTypeUrl())
		for _, r := range m.GetResources() {
			requireValid(s.t, r)
		}
		return m
	case <-time.After(timeout):
		require.FailNow(s.t, "no response was received", "of %s", of)
		return nil
	}
}

func (s *stream) acknowledge(m *discovery.DiscoveryResponse) {
	s.t.Helper()
	require.NoError(s.t, s.stream.Send(&discovery.DiscoveryRequest{
		TypeUrl: m.GetTypeUrl(), ResourceNames: s.names[m.GetTypeUrl()], VersionInfo: m.GetVersionInfo(),
		ResponseNonce: m.GetNonce(),
	}))
}

func (s *stream) reject(m *discovery.DiscoveryResponse, why string) {
	s.t.Helper()
	require.NoError(s.t, s.stream.Send(&discovery.DiscoveryRequest{
		TypeUrl: m.GetTypeUrl(), ResourceNames: s.names[m.GetTypeUrl()], ResponseNonce: m.GetNonce(),
		ErrorDetail: &rpcstatus.Status{Code: 3, Message: why},
	}))
}

// message returns one resource of a response.
func message[M proto.Message](t testing.TB, into M, m *discovery.DiscoveryResponse, i int) M {
	t.Helper()
	require.Greater(t, len(m.GetResources()), i, "the response has too few resources: %v", m)
	require.NoError(t, m.GetResources()[i].UnmarshalTo(into))
	return into
}

// addresses lists the addresses of an assignment, by priority.
func addresses(a *endpoint.ClusterLoadAssignment) string {
	var parts []string
	for _, l := range a.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			parts = append(
				parts,
				fmt.Sprintf(
					"%d:%s",
					l.GetPriority(),
					strings.TrimPrefix(e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress(), "10.0.0."),
				),
			)
		}
	}
	return strings.Join(parts, " ")
}

func TestGRPCClient(t *testing.T) {
	r := newFixture(t)
	r.put("shop 1 eu/a healthy")
	r.put("shop 2 eu/b healthy")
	s := r.open(node("grpc", "eu/a"))
	s.subscribe(xds.Listeners, "shop")
	s.next(xds.Listeners)
	s.subscribe(xds.Routes, "shop")
	routes := message(t, &route.RouteConfiguration{}, s.next(xds.Routes), 0)
	require.Equal(t, "shop", routes.GetVirtualHosts()[0].GetRoutes()[0].GetRoute().GetCluster())
	s.subscribe(xds.Clusters, "shop")
	c := message(t, &cluster.Cluster{}, s.next(xds.Clusters), 0)
	require.Equal(t, "shop", c.GetEdsClusterConfig().GetServiceName())
	s.subscribe(xds.Endpoints, "shop")
	require.Equal(t, "0:1 1:2", addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))

	r.put("shop 1 eu/a unhealthy")
	require.Equal(t, "0:2", addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))

	// The service is removed: its cluster stays, without instances, so that calls fail at once.
	r.remove("shop", "1")
	r.remove("shop", "2")
	require.Empty(t, addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))
	require.Equal(t, "shop", message(t, &cluster.Cluster{}, s.next(xds.Clusters), 0).GetName())
}

// TestUnknownServiceIsAnswered: gRPC would wait 15 seconds for what does not exist. It is sent a service without
// instances, which get there when they are registered. A name that no service can have is not answered.
func TestUnknownServiceIsAnswered(t *testing.T) {
	r := newFixture(t)
	s := r.open(node("grpc", "eu/a"))
	s.subscribe(xds.Listeners, "Not A Service", "later")
	require.Len(t, s.next(xds.Listeners).GetResources(), 1)
	s.subscribe(xds.Routes, "later")
	routes := message(t, &route.RouteConfiguration{}, s.next(xds.Routes), 0)
	name := routes.GetVirtualHosts()[0].GetRoutes()[0].GetRoute().GetCluster()
	s.subscribe(xds.Clusters, name)
	require.Equal(t, name, message(t, &cluster.Cluster{}, s.next(xds.Clusters), 0).GetName())
	s.subscribe(xds.Endpoints, name)
	require.Empty(t, addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))
	r.put("later 1 eu/a healthy")
	s.next(xds.Clusters)
	require.Equal(t, "0:1", addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))
}

// TestOwnersDecideExpectedIDs: once a service has an owner, a client of xDS expects only IDs of the owner's grant, and
// connects to no other instance.
func TestOwnersDecideExpectedIDs(t *testing.T) {
	r := newFixture(t)
	r.put("shop 1 eu/a healthy")
	r.put("shop 2 us/a healthy")
	s := r.open(node("grpc", "eu/a"))
	s.subscribe(xds.Clusters, "shop")
	expected := func() (ids []string) {
		c := message(t, &cluster.Cluster{}, s.next(xds.Clusters), 0)
		for _, id := range []string{"spiffe://eu.example.org/shop", "spiffe://us.example.org/shop"} {
			if strings.Contains(string(c.GetTransportSocket().GetTypedConfig().GetValue()), id) {
				ids = append(ids, id)
			}
		}
		return ids
	}
	require.Equal(t, []string{"spiffe://eu.example.org/shop", "spiffe://us.example.org/shop"}, expected())
	s.subscribe(xds.Endpoints, "shop")
	require.Equal(t, "0:1 1:2", addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))

	routingtest.Grant(t, routingtest.NewGuard(t, r.store), &ententev1.Grant{
		Role: grant.Discovery, SpiffeId: "spiffe://eu.example.org/plane", TrustDomain: "eu.example.org",
		PathPrefix: "/shop", Services: []string{"shop"},
	})
	require.Equal(t, []string{"spiffe://eu.example.org/shop"}, expected())
	require.Equal(t, "0:1", addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))
}

// TestEnvoy subscribes with wildcards, in the order of Envoy: the cluster of a new service is sent before the route to
// it.
func TestEnvoy(t *testing.T) {
	r := newFixture(t)
	r.put("shop 1 eu/a healthy")
	s := r.open(node("envoy", "eu/a"))
	s.subscribe(xds.Clusters)
	c := message(t, &cluster.Cluster{}, s.next(xds.Clusters), 0)
	require.Equal(t, "shop", c.GetName())
	s.subscribe(xds.Endpoints, "shop")
	a := message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)
	require.EqualValues(t, 140, a.GetPolicy().GetOverprovisioningFactor().GetValue())
	s.subscribe(xds.Secrets, xds.AllRoots)
	require.Len(t, s.next(xds.Secrets).GetResources(), 1)
	s.subscribe(xds.Listeners)
	require.Len(t, s.next(xds.Listeners).GetResources(), 1)
	s.subscribe(xds.Routes, xds.Outbound)
	require.Len(t, message(t, &route.RouteConfiguration{}, s.next(xds.Routes), 0).GetVirtualHosts(), 1)

	r.put("cart 9 eu/a healthy")
	both := s.next(xds.Clusters)
	require.Len(t, both.GetResources(), 2)
	require.Len(t, message(t, &route.RouteConfiguration{}, s.next(xds.Routes), 0).GetVirtualHosts(), 2)

	r.remove("cart", "9")
	require.Len(
		t,
		message(t, &route.RouteConfiguration{}, s.next(xds.Routes), 0).GetVirtualHosts(),
		1,
		"the route is removed first",
	)
	require.Len(t, s.next(xds.Clusters).GetResources(), 1, "and the cluster after it")
}

// TestRejectedUpdateIsNotSentAgain: the stream continues, and the next version is sent.
func TestRejectedUpdateIsNotSentAgain(t *testing.T) {
	r := newFixture(t)
	r.put("shop 1 eu/a healthy")
	s := r.open(node("grpc", "eu/a"))
	s.subscribe(xds.Endpoints, "shop")
	first := s.unacknowledged(xds.Endpoints)
	s.reject(first, "shop: invalid")
	r.put("cart 9 eu/a healthy") // does not concern this stream
	r.put("shop 2 eu/a healthy")
	second := s.next(xds.Endpoints)
	require.Equal(t, "0:1 0:2", addresses(message(t, &endpoint.ClusterLoadAssignment{}, second, 0)))
	require.NotEqual(t, first.GetVersionInfo(), second.GetVersionInfo())
	r.remove("shop", "2") // the content is that of the rejected version again
	r.put("shop 3 eu/a healthy")
	require.Eventually(t, func() bool {
		return addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)) == "0:1 0:3"
	}, timeout, time.Millisecond)
}

// TestStaleNonceIsIgnored: a request with the nonce of an earlier response changes nothing.
func TestStaleNonceIsIgnored(t *testing.T) {
	r := newFixture(t)
	r.put("shop 1 eu/a healthy")
	s := r.open(node("grpc", "eu/a"))
	s.subscribe(xds.Endpoints, "shop")
	first := s.next(xds.Endpoints)
	r.put("shop 2 eu/a healthy")
	second := s.unacknowledged(xds.Endpoints)
	s.acknowledge(first)
	s.acknowledge(second)
	r.put("shop 3 eu/a healthy")
	require.Equal(t, "0:1 0:2 0:3", addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))
}

// TestScopeLimitsStreams: what a node claims gives no rights.
func TestScopeLimitsStreams(t *testing.T) {
	r := newFixture(t)
	r.put("shop 1 eu/a healthy")
	r.put("shop 2 us/a healthy")
	r.put("secret 3 eu/a healthy")
	s := r.open(node("grpc", "eu/a"), "sees", "us.example.org")
	s.subscribe(xds.Endpoints, "shop")
	require.Equal(t, "0:2", addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))
	s.subscribe(xds.Listeners, "secret", "shop")
	require.Len(t, s.next(xds.Listeners).GetResources(), 2, "a service without a visible instance is as an unknown one")
	s.subscribe(xds.Endpoints, "secret")
	require.Empty(t, addresses(message(t, &endpoint.ClusterLoadAssignment{}, s.next(xds.Endpoints), 0)))
}

// TestClientWithoutBundleMaps: it gets one cluster for each domain, the load is split by domain, and each falls back on
// the other.
func TestClientWithoutBundleMaps(t *testing.T) {
	r := newFixture(t)
	r.put("shop 1 eu/a healthy")
	r.put("shop 2 eu/a unhealthy")
	r.put("shop 3 us/a healthy")
	s := r.open(node("node", "eu/a"))
	s.subscribe(xds.Routes, "shop")
	weighted := message(
		t,
		&route.RouteConfiguration{},
		s.next(xds.Routes),
		0,
	).GetVirtualHosts()[0].GetRoutes()[0].GetRoute().
		GetWeightedClusters()
	require.Len(t, weighted.GetClusters(), 2)
	require.Equal(t, "shop~eu.example.org", weighted.GetClusters()[0].GetName())
	s.subscribe(xds.Clusters, "shop~eu.example.org", "shop@eu.example.org", "shop@us.example.org")
	require.Len(t, s.next(xds.Clusters).GetResources(), 3)
	s.subscribe(xds.Endpoints, "shop@eu.example.org", "shop@us.example.org")
	both := s.next(xds.Endpoints)
	require.Equal(t, "0:1", addresses(message(t, &endpoint.ClusterLoadAssignment{}, both, 0)))
	require.Equal(t, "0:3", addresses(message(t, &endpoint.ClusterLoadAssignment{}, both, 1)))
}

// TestSubscriptionsAreBounded: the stream of a client ends that subscribes to too many types, or to more names than
// there can be services.
func TestSubscriptionsAreBounded(t *testing.T) {
	r := newFixture(t)
	ends := func(s *stream) codes.Code {
		for {
			if _, err := s.stream.Recv(); err != nil {
				return status.Code(err)
			}
		}
	}
	raw := func() *stream {
		s, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).StreamAggregatedResources(t.Context())
		require.NoError(t, err)
		return &stream{t: t, node: node("envoy", "eu/a"), stream: s, names: map[string][]string{}}
	}
	send := func(s *stream, of string, names ...string) {
		_ = s.stream.Send(
			&discovery.DiscoveryRequest{Node: s.node, TypeUrl: of, ResourceNames: names},
		) // it may have ended already
	}
	types := raw()
	for i := range 33 {
		send(types, fmt.Sprintf("type.googleapis.com/none.v%d", i), "x")
	}
	require.Equal(t, codes.ResourceExhausted, ends(types))
	long := raw()
	send(long, strings.Repeat("x", 257), "x")
	require.Equal(t, codes.ResourceExhausted, ends(long))
	names := raw()
	var many []string
	for i := range 4097 {
		many = append(many, fmt.Sprint("service-", i))
	}
	send(names, string(xds.Clusters), many...)
	require.Equal(t, codes.ResourceExhausted, ends(names))
}

func TestTheFirstRequestNamesTheNode(t *testing.T) {
	r := newFixture(t)
	s := r.open(nil)
	s.subscribe(xds.Clusters)
	_, open := <-s.got
	require.False(t, open)
}
