package federation

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/clocktest"
)

// topology is the shape of the relationships in a federation.
type topology string

const (
	// In a mesh each cluster has a relationship with each other one.
	mesh topology = "mesh"
	// oneHub has one hub, which attests all clusters. Each cluster accepts all others from its map.
	oneHub topology = "hub"
	// twoLevels has about as many regional hubs as each has spokes. A hub attests the spokes of its region. An
	// attestation reaches one hop, so each cluster accepts the maps of all hubs: hubs from each other and spokes from
	// the hub of their region over streams, and spokes from the other hubs by polling.
	twoLevels topology = "two-level"
)

// hubs returns the number of hubs among n clusters.
func (t topology) hubs(n int) int {
	switch t {
	case oneHub:
		return 1
	case twoLevels:
		return int(math.Round(math.Sqrt(float64(n))))
	}
	return 0
}

// streamed reports whether a cluster has a stream with a hub, if there are streams: other hubs and the spokes of its
// region have.
func (topology) streamed(i, hub, hubs int) bool { return i < hubs || i%hubs == hub }

// links returns the relationships of one cluster. The first clusters are the hubs; spokes are assigned to them in turn.
func (t topology) links(i int, all []*simAuthority, streams bool) (links []link) {
	hubs := t.hubs(len(all))
	for j, other := range all {
		switch {
		case j == i:
		case t == mesh:
			links = append(links, link{other: other, stream: streams, dial: streams})
		case i < hubs && j < hubs: // among hubs
			links = append(links, link{other: other, stream: streams, dial: streams, hub: true})
		case i < hubs && j%hubs == i: // a hub with its spokes
			links = append(links, link{other: other, stream: streams, attest: true})
		case i >= hubs && j < hubs: // a spoke with the hubs
			own := streams && t.streamed(i, j, hubs)
			links = append(links, link{other: other, stream: own, dial: own, hub: true})
		}
	}
	return links
}

// whole is a federation whose clusters are all real.
type whole struct {
	w        *world
	topology topology
	streams  bool
	clusters []*cluster
}

func (w *world) newWhole(t topology, n int, streams bool) *whole {
	f := &whole{w: w, topology: t, streams: streams}
	homes := make([]*simAuthority, n)
	for i := range n {
		c := w.newCluster(simName(i), 1)
		c.hub = i < t.hubs(n)
		f.clusters, homes[i] = append(f.clusters, c), c.home
	}
	for i, c := range f.clusters {
		c.relate(t.links(i, homes, streams))
		c.run()
	}
	return f
}

// settle waits until all streams are open and all clusters have all bundles.
func (f *whole) settle() {
	f.w.t.Helper()
	homes := make([]*simAuthority, len(f.clusters))
	for i, c := range f.clusters {
		homes[i] = c.home
	}
	for i, c := range f.clusters {
		want := 0
		for _, l := range f.topology.links(i, homes, f.streams) {
			if l.stream {
				want++
			}
		}
		await(f.w.t, want, c.streams)
	}
	for _, c := range f.clusters {
		for _, other := range f.clusters {
			if c != other {
				_, err := f.within(c, other, 1)
				require.NoError(f.w.t, err)
			}
		}
	}
	<-time.After(2 * simHint) // until the results of the first fetches have spread
}

// await waits for a number of streams.
func await(t testing.TB, want int, open func() int) {
	t.Helper()
	for deadline := time.Now().Add(time.Hour); open() != want; <-time.After(time.Second) {
		require.True(t, time.Now().Before(deadline), "%d of %d streams are open", open(), want)
	}
}

// within waits until a cluster has stored a bundle of another one.
func (f *whole) within(c, other *cluster, sequence uint64) (time.Time, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	at, err := c.knows(ctx, other.home.td.Name(), sequence)
	if err != nil {
		return at, fmt.Errorf("%s does not know sequence %d of %s: %w", c.home.td, sequence, other.home.td, err)
	}
	return at, nil
}

// distrust makes one cluster distrust one of its authorities, and returns the time until each other cluster has stored
// that.
func (f *whole) distrust(origin *cluster, sequence uint64) (took []time.Duration) {
	f.w.t.Helper()
	began := time.Now()
	origin.publish(sequence)
	var mu sync.Mutex
	var work sync.WaitGroup
	for _, c := range f.clusters {
		if c == origin {
			continue
		}
		work.Go(func() {
			at, err := f.within(c, origin, sequence)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				f.w.t.Error(err)
			}
			took = append(took, at.Sub(began))
		})
	}
	work.Wait()
	<-time.After(10 * time.Second) // until all is acknowledged
	return took
}

// traffic returns what each cluster has sent and received so far.
func (f *whole) traffic() []trafficByKind {
	all := make([]trafficByKind, len(f.clusters))
	for i, c := range f.clusters {
		all[i] = c.counted.counted()
	}
	return all
}

// role is the part of a cluster in a distrust: its origin, a hub, or an ordinary cluster.
type role string

const (
	origin   role = "origin"
	hubRole  role = "hub"
	ordinary role = "ordinary"
)

// costs is the mean traffic of the clusters of each role.
type costs map[role]tally

// byRole returns the mean counted traffic per role. The last cluster is the origin.
func (f *whole) byRole(before, after []trafficByKind, counts func(trafficByKind) tally) costs {
	sum, of := costs{}, map[role]int{}
	for i := range f.clusters {
		r := ordinary
		switch {
		case i == len(f.clusters)-1:
			r = origin
		case f.clusters[i].hub:
			r = hubRole
		}
		sum[r] = sum[r].plus(counts(after[i].since(before[i])))
		of[r]++
	}
	for r, t := range sum {
		sum[r] = tally{t.messages / of[r], t.bytes / of[r]}
	}
	return sum
}

// measured is the result of one federation.
type measured struct {
	topology topology
	size     int
	streams  bool
	// took is the time until each other cluster knew of the distrust, in order.
	took []time.Duration
	// news is the cost of the distrust for a cluster, and rest that of an hour without changes.
	news, rest costs
}

// measure lets the last cluster of a federation of real clusters distrust several times, and then idle.
func measure(t *testing.T, kind topology, size int, streams bool, rest time.Duration, rounds int) (m measured) {
	clocktest.Run(t, func(t *testing.T) {
		f := newWorld(t, "entente").newWhole(kind, size, streams)
		f.settle()
		m = measured{topology: kind, size: size, streams: streams}
		before := f.traffic()
		m.took = f.distrust(f.clusters[size-1], 2)
		if !streams || kind != mesh { // others' polls go on meanwhile
			<-time.After(simHint)
		}
		after := f.traffic()
		m.news = f.byRole(before, after, trafficByKind.news)
		for round := 1; round < rounds; round++ {
			<-time.After(time.Duration(round) * simHint / 7)                            // some other part of a turn
			m.took = append(m.took, f.distrust(f.clusters[size-1], uint64(2+round))...) //nolint:gosec // a few
		}
		slices.Sort(m.took)
		if rest > 0 {
			<-time.After(time.Hour + simHint) // endpoints are polled beside streams, and a changed map is read once
			after = f.traffic()
			<-time.After(rest)
			m.rest = f.byRole(after, f.traffic(), func(l trafficByKind) tally {
				return l.all().times(float64(time.Hour) / float64(rest))
			})
		}
	})
	return m
}
