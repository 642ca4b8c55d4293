package xds_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/ententehq/entente/routing/xds"
)

// delta is a raw delta stream.
type delta struct {
	t      testing.TB
	node   *core.Node
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	got    chan *discovery.DeltaDiscoveryResponse
}

func (r *fixture) openDelta(n *core.Node) *delta {
	r.t.Helper()
	s, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(r.t.Context())
	require.NoError(r.t, err)
	out := &delta{t: r.t, node: n, stream: s, got: make(chan *discovery.DeltaDiscoveryResponse, 16)}
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

func (d *delta) send(m *discovery.DeltaDiscoveryRequest) {
	d.t.Helper()
	m.Node, d.node = d.node, nil
	require.NoError(d.t, d.stream.Send(m))
}

// next waits for the next response and returns the names in it, those of removed resources after a dash.
func (d *delta) next(of xds.Type, reject string) (string, map[string]string) {
	d.t.Helper()
	select {
	case m, ok := <-d.got:
		require.True(d.t, ok, "the stream has ended")
		require.Equal(d.t, string(of), m.GetTypeUrl())
		request := &discovery.DeltaDiscoveryRequest{TypeUrl: string(of), ResponseNonce: m.GetNonce()}
		if reject != "" {
			request.ErrorDetail = &rpcstatus.Status{Code: 3, Message: reject}
		}
		d.send(request)
		var parts []string
		versions := map[string]string{}
		for _, r := range m.GetResources() {
			requireValid(d.t, r.GetResource())
			parts = append(parts, r.GetName())
			versions[r.GetName()] = r.GetVersion()
		}
		slices.Sort(parts)
		for _, name := range m.GetRemovedResources() {
			parts = append(parts, "-"+name)
		}
		return strings.Join(parts, " "), versions
	case <-time.After(timeout):
		require.FailNow(d.t, "no response was received", "of %s", of)
		return "", nil
	}
}

func (d *delta) wants(of xds.Type, what string) map[string]string {
	d.t.Helper()
	got, versions := d.next(of, "")
	require.Equal(d.t, what, got)
	return versions
}

func TestDelta(t *testing.T) {
	r := newFixture(t)
	r.put("shop 1 eu/a healthy")
	r.put("cart 2 eu/a healthy")
	d := r.openDelta(node("envoy", "eu/a"))
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: string(xds.Clusters)})
	known := d.wants(xds.Clusters, "cart shop")
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), ResourceNamesSubscribe: []string{"shop"}})
	d.wants(xds.Endpoints, "shop")
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), ResourceNamesSubscribe: []string{"cart"}})
	d.wants(xds.Endpoints, "cart")

	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), ResourceNamesUnsubscribe: []string{"shop"}})
	r.put("shop 3 eu/a healthy")
	r.put("cart 4 eu/a healthy")
	d.wants(xds.Endpoints, "cart")

	r.remove("cart", "2")
	r.remove("cart", "4")
	require.Eventually(t, func() bool { // the two removals are sent as one update or as two
		select {
		case m := <-d.got:
			d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()})
			return m.GetTypeUrl() == string(xds.Clusters) && slices.Equal(m.GetRemovedResources(), []string{"cart"})
		default:
			return false
		}
	}, timeout, time.Millisecond)

	// A client that reconnects is sent only what differs from what it has.
	again := r.openDelta(node("envoy", "eu/a"))
	r.put("desk 5 eu/a healthy")
	again.send(&discovery.DeltaDiscoveryRequest{TypeUrl: string(xds.Clusters), InitialResourceVersions: known})
	again.wants(xds.Clusters, "desk -cart")
}

func TestRejectedDeltaIsNotSentAgain(t *testing.T) {
	r := newFixture(t)
	r.put("shop 1 eu/a healthy")
	d := r.openDelta(node("grpc", "eu/a"))
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), ResourceNamesSubscribe: []string{"shop"}})
	got, _ := d.next(xds.Endpoints, "shop is closed")
	require.Equal(t, "shop", got)
	r.put("shop 2 eu/a healthy")
	d.wants(xds.Endpoints, "shop")
}

// TestOnlySubscribersAreSentChanges: a change is sent to the streams that subscribe to the resource, and to no others.
func TestOnlySubscribersAreSentChanges(t *testing.T) {
	r := newFixture(t)
	const n = 50
	var subscribed, others []*delta
	for i := range n {
		r.put(fmt.Sprintf("other %d eu/b healthy", i+1))
	}
	r.put("shop 101 eu/a healthy")
	for i := range n {
		d := r.openDelta(node("grpc", "eu/a"))
		name := "other"
		if i%10 == 0 {
			name = "shop"
			subscribed = append(subscribed, d)
		} else {
			others = append(others, d)
		}
		d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), ResourceNamesSubscribe: []string{name}})
		d.wants(xds.Endpoints, name)
	}
	r.put("shop 102 eu/a healthy")
	for _, d := range subscribed {
		d.wants(xds.Endpoints, "shop")
	}
	r.put("other 200 eu/b healthy")
	for _, d := range others {
		d.wants(xds.Endpoints, "other") // a change of shop would have been received before
	}
}
