package federation

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/clocktest"
)

// grown is the result of one real cluster among many light peers.
type grown struct {
	size int
	// took is the time until each peer had taken the real cluster's distrust; at a hub, until the hub had a peer's.
	took []time.Duration
	// work is the processor time that it cost, both ends.
	work time.Duration
	news tally
	// held is the memory at rest, without that of the peers.
	held int64
	// mapBytes is how large the map of a hub is, and mapWork the cost of rebuilding it.
	mapBytes int
	mapWork  time.Duration
}

// processorTime returns the CPU time of this process so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it does not fail for the process itself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memory returns the bytes in use, with stacks.
func memory() int64 {
	runtime.GC()
	runtime.GC() // collects what pools and finalizers freed
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse) //nolint:gosec // no such heap
}

// growth is a real cluster with its light peers.
type growth struct {
	real   *cluster
	peers  []*simPeer
	homes  []*simAuthority
	before int64
}

// grow creates a real cluster of one member among light peers. kind is its part: a member of a mesh, or the hub.
func (w *world) grow(kind topology, size int, streams bool) *growth {
	w.t.Helper()
	return w.growAmong(1, kind, size, streams)
}

// growAmong does so with a real cluster of several members.
func (w *world) growAmong(members int, kind topology, size int, streams bool) *growth {
	w.t.Helper()
	g := &growth{real: w.newCluster(simName(size/2), members)}
	g.real.hub = kind == oneHub
	var links []link
	for i := range size {
		if i == size/2 {
			continue
		}
		a := w.newAuthority(simName(i))
		g.homes, g.peers = append(g.homes, a), append(g.peers, w.newSimPeer(a, g.real))
		// In a mesh both sides can dial, and the stream of the lower name is kept; spokes dial their hub.
		links = append(links, link{other: a, stream: streams, dial: streams && kind == mesh && i > size/2,
			attest: kind == oneHub})
	}
	g.before = memory()
	g.real.relate(links)
	g.real.run()
	if streams {
		ctx, cancel := context.WithCancel(context.Background())
		var dialers sync.WaitGroup
		for i, p := range g.peers {
			if !links[i].dial {
				dialers.Go(func() { p.dial(ctx) })
			}
		}
		w.t.Cleanup(func() {
			cancel()
			dialers.Wait()
		})
		await(w.t, len(g.peers), g.real.streams)
	}
	// The first fetches start at the takeover pace.
	<-time.After(min(w.hint, time.Duration(size)*relationship.TakeoverPace) + time.Minute)
	return g
}

// distrust makes the real cluster distrust an authority, and waits until all peers have received that.
func (g *growth) distrust() (took []time.Duration) {
	learned := make(chan time.Time, len(g.peers))
	for _, p := range g.peers {
		p.mu.Lock()
		p.learned = func(*simPeer, uint64) { learned <- time.Now() }
		p.mu.Unlock()
	}
	began := time.Now()
	g.real.publish(2)
	for range g.peers {
		took = append(took, (<-learned).Sub(began))
	}
	<-time.After(10 * time.Second)
	slices.Sort(took)
	return took
}

// growMesh measures a member of a mesh.
func growMesh(t *testing.T, size int, streams bool) (g grown) {
	clocktest.Run(t, func(t *testing.T) {
		m := newWorld(t, "entente").grow(mesh, size, streams)
		g = grown{size: size, held: memory() - m.before}
		if streams {
			before, worked := m.real.counted.counted(), processorTime()
			g.took = m.distrust()
			g.work, g.news = processorTime()-worked, m.real.counted.counted().since(before).news()
		}
	})
	return g
}

// mapLength returns the size of the map that a handler serves.
func mapLength(t *testing.T, h *endpoint.Handler) int {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/bundles", nil))
	require.Equal(t, http.StatusOK, answer.Code)
	return answer.Body.Len()
}

// growHub measures a hub: the time until it has stored a spoke's distrust, and its map after that.
func growHub(t *testing.T, size int, streams bool) (g grown) {
	clocktest.Run(t, func(t *testing.T) {
		m := newWorld(t, "entente").grow(oneHub, size, streams)
		mapLength(t, m.real.handler)
		g = grown{size: size, held: memory() - m.before}
		last := len(m.peers) - 1
		began, worked := time.Now(), processorTime()
		m.peers[last].publish(m.homes[last].bundle(t, 2))
		at, err := m.real.knows(t.Context(), m.peers[last].name(), 2)
		require.NoError(t, err)
		g.took = []time.Duration{at.Sub(began)}
		synctest.Wait()
		g.mapBytes = mapLength(t, m.real.handler)
		g.mapWork = processorTime() - worked
	})
	return g
}

// mapHost is a hub that only serves its map.
type mapHost struct {
	handler *endpoint.Handler
	counted traffic
}

func (h *mapHost) accept(*traffic, spiffeid.TrustDomain, string) (*pipeEnd, string, error) {
	return nil, "", errNoLeader
}
func (h *mapHost) serve(w http.ResponseWriter, r *http.Request) { serveCounted(w, r, h.handler) }
func (h *mapHost) sent() *traffic                               { return &h.counted }

// growSpoke measures a real spoke whose hub attests so many domains: the cost of their bundles, and of one distrust.
func growSpoke(t *testing.T, size int) (g grown) {
	clocktest.Run(t, func(t *testing.T) {
		w := newWorld(t, "entente")
		h := &mapHost{}
		var err error
		h.handler, err = endpoint.NewHandler(nil)
		require.NoError(t, err)
		home := w.newAuthority(simName(0))
		publication := endpoint.Publication{Home: home.td, Hosted: []endpoint.Hosted{{Bundle: home.bundle(t, 1)}}}
		var last *simAuthority
		for i := range size - 2 {
			last = w.newAuthority(simName(i + 1))
			v, err := bundle.NewMapEntry(last.bundle(t, 1))
			require.NoError(t, err)
			publication.Attested = append(publication.Attested, v)
		}
		require.NoError(t, h.handler.Publish(publication))
		w.add(home.td.Name(), h)
		spoke := w.newCluster(simName(size-1), 1)
		before := memory()
		spoke.relate([]link{{other: home, hub: true}})
		spoke.run()
		_, err = spoke.knows(t.Context(), last.td.Name(), 1)
		require.NoError(t, err)
		<-time.After(2 * simHint)
		g = grown{size: size, held: memory() - before}

		counted, worked, began := spoke.counted.counted(), processorTime(), time.Now()
		changed, err := bundle.NewMapEntry(last.bundle(t, 2))
		require.NoError(t, err)
		publication.Attested = append(slices.Clone(publication.Attested[:size-3]), changed)
		require.NoError(t, h.handler.Publish(publication))
		at, err := spoke.knows(t.Context(), last.td.Name(), 2)
		require.NoError(t, err)
		g.took = []time.Duration{at.Sub(began)}
		<-time.After(10 * time.Second)
		g.work, g.news = processorTime()-worked, spoke.counted.counted().since(counted).news()
	})
	return g
}

// simPeerMemory returns the memory of a simulated peer with its session and the connection of its stream.
func simPeerMemory(t *testing.T) (each int64) {
	const many = 500
	clocktest.Run(t, func(t *testing.T) {
		w := newWorld(t, "entente")
		of := w.newCluster(simName(0), 1)
		peers := make([]*simPeer, many)
		for i := range peers {
			peers[i] = w.newSimPeer(w.newAuthority(simName(i+1)), of)
		}
		before := memory()
		ends := make([]*pipeEnd, many)
		for i, p := range peers {
			var err error
			ends[i], _, err = p.accept(&of.counted, of.home.td, "member-1")
			require.NoError(t, err)
		}
		synctest.Wait()
		each = (memory() - before) / many
		for _, e := range ends {
			e.Finish()
			e.hangUp()
		}
	})
	return each
}
