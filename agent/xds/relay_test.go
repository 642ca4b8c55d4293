package xds_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	ads "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/agent/xds"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// patience is far longer than anything here takes on a busy machine.
const patience = 2 * time.Minute

// routes are what the members of a cluster serve.
type routes struct {
	mu      sync.Mutex
	changed chan struct{}
	all     map[string]*xdsupdate.Resource // assignments by name
	denied  error
	opened  atomic.Int64
	nodes   chan *core.Node
}

func newRoutes() *routes {
	return &routes{
		changed: make(chan struct{}), all: map[string]*xdsupdate.Resource{}, nodes: make(chan *core.Node, 100),
	}
}

// assignment has one endpoint in the home domain at a port, and one of a foreign domain at the port after it.
func assignment(name string, port uint32, foreign bool) *endpoint.ClusterLoadAssignment {
	at := func(port uint32) *endpoint.LbEndpoint {
		return &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{
			Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
				Address: "127.0.0.1", PortSpecifier: &core.SocketAddress_PortValue{PortValue: port},
			}}},
		}}}
	}
	a := &endpoint.ClusterLoadAssignment{ClusterName: name}
	if foreign {
		e := at(port + 1)
		e.Metadata = xdsupdate.ForeignMetadata("us.example.org")
		a.Endpoints = append(a.Endpoints, &endpoint.LocalityLbEndpoints{LbEndpoints: []*endpoint.LbEndpoint{e}})
	}
	a.Endpoints = append(a.Endpoints, &endpoint.LocalityLbEndpoints{
		Priority:    uint32(len(a.GetEndpoints())), //nolint:gosec // G115: at most 1
		LbEndpoints: []*endpoint.LbEndpoint{at(port)},
	})
	return a
}

func (r *routes) set(t *testing.T, name string, port uint32, foreign bool) {
	t.Helper()
	resource, err := xdsupdate.Present(name, assignment(name, port, foreign))
	require.NoError(t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[name] = resource
	close(r.changed)
	r.changed = make(chan struct{})
}

// Changed implements discovery.Source.
func (r *routes) Changed() ([2]<-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return [2]<-chan struct{}{r.changed}, nil
}

// Subscribe implements discovery.Source.
func (r *routes) Subscribe(xdsupdate.Type, discovery.Subscription) error { return nil }

// Wanted implements discovery.Source.
func (r *routes) Wanted(
	t xdsupdate.Type, s discovery.Subscription,
) (map[string]*xdsupdate.Resource, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]*xdsupdate.Resource{}
	for _, name := range s.Names {
		var err error
		if out[name] = r.all[name]; out[name] == nil || t != xdsupdate.Endpoints {
			if out[name], err = xdsupdate.Missing(t, name); err != nil {
				return nil, false, err
			}
		}
	}
	return out, true, nil
}

// Close implements discovery.Source.
func (r *routes) Close() {}

// member serves routes until it is stopped.
func (r *routes) member(t *testing.T, address string) (string, *grpc.Server) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	s := grpc.NewServer()
	ads.RegisterAggregatedDiscoveryServiceServer(s, xds.Server{Handler: func(string) discovery.Handler {
		return discovery.Handler{Open: func(_ context.Context, node *core.Node) (discovery.Source, error) {
			r.opened.Add(1)
			r.nodes <- node
			if r.denied != nil {
				return nil, r.denied
			}
			return r, nil
		}}
	}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String(), s
}

// relay serves a relay of the member at an address, and returns its socket.
func relay(t *testing.T, address string, maxStale time.Duration) string {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	r := xds.New(xds.Config{MaxStale: maxStale, Logger: hclog.NewNullLogger()})
	t.Cleanup(r.Close)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := grpc.NewServer()
	handler := r.Open(func() (grpc.ClientConnInterface, func(), error) { return conn, func() {}, nil })
	ads.RegisterAggregatedDiscoveryServiceServer(s, xds.Server{
		Handler: func(string) discovery.Handler { return handler },
	})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return socket
}

// program is a client with one state-of-the-world stream of assignments.
type program struct {
	t      *testing.T
	stream ads.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	last   *ads.DiscoveryResponse
	names  []string
}

func start(t *testing.T, socket string, names ...string) *program {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	stream, err := ads.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	require.NoError(t, err)
	p := &program{t: t, stream: stream, last: &ads.DiscoveryResponse{}, names: names}
	p.respond(nil)
	return p
}

// respond acknowledges the last response, or rejects it.
func (p *program) respond(rejection *rpcstatus.Status) {
	p.t.Helper()
	require.NoError(p.t, p.stream.Send(&ads.DiscoveryRequest{
		Node:    &core.Node{Id: "program", ClientFeatures: []string{xdsupdate.NoOverprovisioning}},
		TypeUrl: string(xdsupdate.Endpoints), ResourceNames: p.names, VersionInfo: p.last.GetVersionInfo(),
		ResponseNonce: p.last.GetNonce(), ErrorDetail: rejection,
	}))
}

// receive returns the ports of each assignment in the next response.
func (p *program) receive() map[string][]uint32 {
	p.t.Helper()
	m, err := p.stream.Recv()
	require.NoError(p.t, err)
	p.last = m
	out := map[string][]uint32{}
	for _, raw := range m.GetResources() {
		var a endpoint.ClusterLoadAssignment
		require.NoError(p.t, raw.UnmarshalTo(&a))
		out[a.GetClusterName()] = []uint32{}
		for i, l := range a.GetEndpoints() {
			require.Equal(p.t, uint32(i), l.GetPriority(), "priorities have no gaps") //nolint:gosec // G115
			for _, e := range l.GetLbEndpoints() {
				out[a.GetClusterName()] = append(out[a.GetClusterName()],
					e.GetEndpoint().GetAddress().GetSocketAddress().GetPortValue())
			}
		}
	}
	return out
}

func (p *program) accept() map[string][]uint32 {
	p.t.Helper()
	got := p.receive()
	p.respond(nil)
	return got
}

type ports = map[string][]uint32

// TestProgramsShareAStream: programs of one kind have one stream to a member, and each has what it subscribes to.
func TestProgramsShareAStream(t *testing.T) {
	r := newRoutes()
	r.set(t, "shop", 1, false)
	r.set(t, "cart", 10, false)
	address, _ := r.member(t, "127.0.0.1:0")
	socket := relay(t, address, time.Hour)
	one, two := start(t, socket, "shop"), start(t, socket, "cart", "none")
	require.Equal(t, ports{"shop": {1}}, one.accept())
	require.Equal(t, ports{"cart": {10}}, two.accept())
	r.set(t, "shop", 2, false)
	require.Equal(t, ports{"shop": {2}}, one.accept())
	r.set(t, "cart", 11, false)
	require.Equal(t, ports{"cart": {11}}, two.accept())
	require.EqualValues(t, 1, r.opened.Load())
	node := <-r.nodes
	require.Equal(t, []string{xdsupdate.NoOverprovisioning}, node.GetClientFeatures())
}

// TestFrozenProgramDelaysNobody: a program that reads nothing has no part of what others are sent.
func TestFrozenProgramDelaysNobody(t *testing.T) {
	r := newRoutes()
	r.set(t, "shop", 1, false)
	address, _ := r.member(t, "127.0.0.1:0")
	socket := relay(t, address, time.Hour)
	start(t, socket, "shop") // is never read
	other := start(t, socket, "shop")
	require.Equal(t, ports{"shop": {1}}, other.accept())
	for i := range uint32(2000) {
		r.set(t, "shop", i+2, false)
		require.Equal(t, ports{"shop": {i + 2}}, other.accept())
	}
}

// TestMemberIsLost: streams of programs stay open over the loss of a member, programs that start in the outage have
// what is there, and the next member brings what differs. Instances of foreign domains are left out after a while.
func TestMemberIsLost(t *testing.T) {
	r := newRoutes()
	r.set(t, "shop", 1, true)
	r.set(t, "cart", 10, false)
	address, member := r.member(t, "127.0.0.1:0")
	socket := relay(t, address, 200*time.Millisecond)
	p := start(t, socket, "shop", "cart")
	got := ports{}
	for len(got) < 2 {
		for name, list := range p.accept() {
			got[name] = list
		}
	}
	require.Equal(t, ports{"shop": {2, 1}, "cart": {10}}, got)
	member.Stop()
	require.Equal(t, ports{"shop": {1}}, p.accept(), "the foreign instance, after max_stale")
	late := start(t, socket, "shop")
	require.Equal(t, ports{"shop": {1}}, late.accept())

	r.set(t, "cart", 11, false)
	r.member(t, address)
	got = ports{}
	for len(got) < 2 {
		for name, list := range p.accept() {
			got[name] = list
		}
	}
	require.Equal(t, ports{"shop": {2, 1}, "cart": {11}}, got)
	require.Equal(t, ports{"shop": {2, 1}}, late.accept())
}

// TestRejectedVersion: a version that one program rejects is not sent to it again, and others have it.
func TestRejectedVersion(t *testing.T) {
	r := newRoutes()
	r.set(t, "shop", 1, false)
	address, _ := r.member(t, "127.0.0.1:0")
	socket := relay(t, address, time.Hour)
	picky, other := start(t, socket, "shop"), start(t, socket, "shop")
	require.Equal(t, ports{"shop": {1}}, picky.receive())
	picky.respond(&rpcstatus.Status{Message: "shop: no"})
	require.Equal(t, ports{"shop": {1}}, other.accept())
	r.set(t, "shop", 2, false)
	require.Equal(t, ports{"shop": {2}}, picky.accept(), "the next version, and not the rejected one again")
}

// TestMemberRefuses: the reason of a member reaches the program, and the next attempt makes a new request.
func TestMemberRefuses(t *testing.T) {
	r := newRoutes()
	r.denied = status.Error(codes.PermissionDenied, "spiffe://x has no role discovery")
	address, _ := r.member(t, "127.0.0.1:0")
	socket := relay(t, address, time.Hour)
	for i := range 2 {
		_, err := start(t, socket, "shop").stream.Recv()
		require.Equal(t, codes.PermissionDenied, status.Code(err), err)
		require.ErrorContains(t, err, "spiffe://x has no role discovery")
		require.EqualValues(t, i+1, r.opened.Load(), fmt.Sprint("attempt ", i))
	}
}
