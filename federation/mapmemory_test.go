package federation

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/peer"
)

// live returns the bytes that the last garbage collection found in use. What is allocated since does not count, however
// busy the machine is.
func live() uint64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// TestMemoryOfStreams tests that a peer with as many streams as possible, and the largest messages on each, never
// occupies 16 MiB of a member, whether or not they can be stored.
func TestMemoryOfStreams(t *testing.T) {
	const most = 16 << 20
	spoke, hub := newSite(t, "spoke.example.org"), federationtest.NewAuthority(t, "hub.example.org")
	rel := spiffeRelationship(hub, federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1)))
	rel.Peer = &ententev1.Peer{HomeTrustDomain: "hub.example.org"}
	rel.Hub = &ententev1.Hub{Include: []string{".example.org"}}
	spoke.create(t, rel, hub.Bundle(t, 1))
	until(t,
		"the relationship to be read",
		func() bool { return len(spoke.manager.streams.Domains("hub.example.org")) == 1 })
	vouched, err := bundle.NewMapEntry(federationtest.NewAuthority(t, "ap.example.org").Large(t, 1))
	require.NoError(t, err)
	changes := &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapChanges{MapChanges: &ententev1.PeerMapChanges{
		TrustDomain: "hub.example.org", Subscription: 1,
		Bundles: []*ententev1.PeerBundle{{TrustDomain: "ap.example.org", Document: vouched.Document}},
	}}}
	own := &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Bundle{
			Bundle: &ententev1.PeerBundle{TrustDomain: "hub.example.org", Document: hub.Large(t, 2).Marshal()},
		},
	}
	require.Greater(t, min(proto.Size(changes), proto.Size(own)), 512<<10)
	pace := spoke.manager.streams.BudgetOf("hub.example.org")
	require.NoError(t, pace.Turn.Acquire(t.Context(), 1)) // nothing can be stored
	var calls []ententev1.PeerService_ExchangeClient
	for i := range 2 * peer.MaxStreamsPerPeer {
		member := fmt.Sprint("member-", i)
		call := spoke.intrude(t, hub, "/entente/member/"+member)
		hello := federationtest.Hello("hub.example.org", member)
		if err := call.Send(&ententev1.ExchangeRequest{Message: hello}); err != nil {
			continue
		}
		if _, err := call.Recv(); err == nil { // the stream was accepted
			mapInterest(t, call)
			calls = append(calls, call)
		}
	}
	require.Len(t, calls, peer.MaxStreamsPerPeer)
	var prepared [2]grpc.PreparedMsg // the sender has each message in memory once
	for i, m := range []*ententev1.PeerMessage{changes, own} {
		require.NoError(t, prepared[i].Encode(calls[0], &ententev1.ExchangeRequest{Message: m}))
	}
	before, held := live(), uint64(0)
	look := func() {
		if now := live(); now > before {
			held = max(held, now-before)
		}
	}
	var sending sync.WaitGroup
	for _, call := range calls {
		sending.Go(func() {
			for i := range 4 {
				if call.SendMsg(&prepared[i/2]) != nil {
					return
				}
			}
		})
	}
	free := func(bytes int64) bool {
		look()
		if !pace.Maps.Held.TryAcquire(bytes) {
			return false
		}
		pace.Maps.Held.Release(bytes)
		return true
	}
	until(t, "much to wait", func() bool { return !free(peer.MaxHeld / 2) })
	for range 20 {
		look()
	}
	pace.Turn.Release(1)
	sent := make(chan struct{})
	go func() { sending.Wait(); close(sent) }()
	until(t, "all to be looked at", func() bool {
		select {
		case <-sent:
			return free(peer.MaxHeld)
		default:
			look()
			return false
		}
	})
	t.Logf("at most %d KiB were held", held>>10)
	require.Greater(t, held, uint64(peer.MaxHeld/2))
	require.Less(t, held, uint64(most))
}
