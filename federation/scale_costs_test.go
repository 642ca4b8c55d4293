package federation

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// units are the measured costs between two clusters. [units.distrust], [units.rest] and [units.memory] compute from
// them federations that are too large to simulate. Simulated federations verify the computation.
type units struct {
	// bundle is a bundle over a stream with its acknowledgement, and word a hub's word about one.
	bundle, word tally
	// poll is a poll that returns a bundle, and mapPoll one that returns a map, without the map itself; mapBytes is the
	// size of each domain in a map.
	poll, mapPoll tally
	mapBytes      float64
	// pair is an hour of rest of a relationship in a mesh, spoke that of a spoke with its hub, and far that of a spoke
	// with another region's hub, each over streams and by polling.
	pair, spoke, far map[bool]tally
	// relationship is the memory of one, asHub that of one at a hub, domain that of one that a hub attests, each
	// over streams and by polling.
	rel, asHub, domain map[bool]float64
}

// regions returns the number of hubs, and of clusters per region with its hub.
func (t topology) regions(n int) (hubs int, each float64) {
	hubs = t.hubs(n)
	return hubs, float64(n) / float64(max(hubs, 1))
}

// readMap returns the cost of a poll that returns a map of so many domains.
func (u units) readMap(domains float64) tally {
	return u.mapPoll.plus(tally{0, int(domains * u.mapBytes)})
}

// distrust returns the cost of one distrust for its origin, the hub of the origin, and the cluster that receives it
// last.
func (u units) distrust(kind topology, n int, streams bool) costs {
	others := float64(n - 1)
	news, hubs := u.poll, 0
	if streams {
		news = u.bundle
	}
	if kind == mesh {
		return costs{origin: news.times(others), ordinary: news}
	}
	hubs, each := kind.regions(n)
	read := u.readMap(each - 1)
	switch receivers := each + float64(hubs) - 2; { // the other spokes, the origin and the other hubs
	case !streams:
		return costs{origin: news.plus(read), hubRole: news.plus(read.times(others)), ordinary: read}
	case kind == oneHub:
		return costs{origin: news.plus(u.word), hubRole: news.plus(u.word.times(others)), ordinary: u.word}
	default:
		return costs{
			origin:   news.plus(u.word),
			hubRole:  news.plus(u.word.times(receivers)).plus(read.times(others - receivers)),
			ordinary: read,
		}
	}
}

// rest returns the cost of an hour in which nothing changes.
func (u units) rest(kind topology, n int, streams bool) costs {
	others := float64(n - 1)
	if kind == mesh {
		return costs{ordinary: u.pair[streams].times(others)}
	}
	hubs, each := kind.regions(n)
	near := each + float64(hubs) - 2
	return costs{
		hubRole:  u.spoke[streams].times(near).plus(u.far[streams].times(others - near)),
		ordinary: u.spoke[streams].plus(u.far[streams].times(float64(hubs - 1))),
	}
}

// memory returns the bytes in use at a member that has all streams of its cluster.
func (u units) memory(kind topology, n int, streams bool) map[role]float64 {
	others := float64(n - 1)
	if kind == mesh {
		return map[role]float64{ordinary: u.rel[streams] * others}
	}
	hubs, each := kind.regions(n)
	return map[role]float64{
		hubRole:  u.asHub[streams]*(each-1) + u.rel[streams]*float64(hubs-1) + u.domain[streams]*(others-each+1),
		ordinary: u.domain[streams]*others + u.rel[false]*float64(hubs-1),
	}
}

// found has the results of one run so far.
type found struct {
	whole, rested []measured
	large         []grownTogether
}

// grownTogether is one cluster among so many, as each of what it can be.
type grownTogether struct{ polled, streamed, hub, polledHub, spoke, streamedSpoke grown }

// of returns the last result of a kind, which is the largest.
func of(all []measured, kind topology, streams bool) (last measured) {
	for _, m := range all {
		if m.topology == kind && m.streams == streams {
			last = m
		}
	}
	return last
}

// units returns the costs in the largest simulated federations.
func (f *found) units() units {
	g := f.large[len(f.large)-1]
	others := float64(g.streamed.size - 1)
	polled := of(f.whole, mesh, false)
	u := units{
		bundle: g.streamed.news.times(1 / others), word: g.streamedSpoke.news,
		poll:     polled.news[origin].times(1 / float64(polled.size-1)),
		mapBytes: float64(g.hub.mapBytes) / others,
		pair:     map[bool]tally{}, spoke: map[bool]tally{}, far: map[bool]tally{},
		rel:    map[bool]float64{false: float64(g.polled.held) / others, true: float64(g.streamed.held) / others},
		asHub:  map[bool]float64{false: float64(g.polledHub.held) / others, true: float64(g.hub.held) / others},
		domain: map[bool]float64{false: float64(g.spoke.held) / others, true: float64(g.streamedSpoke.held) / others},
	}
	small := f.large[0].spoke // the connection is a notable part of it
	u.mapPoll = tally{small.news.messages, small.news.bytes - int(u.mapBytes*float64(small.size-1))}
	for _, streams := range []bool{false, true} {
		m, h, two := of(f.rested, mesh, streams), of(f.rested, oneHub, streams), of(f.rested, twoLevels, streams)
		u.pair[streams] = m.rest[ordinary].times(1 / float64(m.size-1))
		u.spoke[streams] = h.rest[ordinary]
		u.far[streams] = two.rest[ordinary].minus(h.rest[ordinary]).times(1 / float64(twoLevels.hubs(two.size)-1))
	}
	return u
}

// costs prints the computed costs of a cluster, for each topology and size.
func (s *scale) costs(t *testing.T) {
	if len(s.found.large) == 0 || len(s.found.rested) == 0 {
		return // small sizes, or another part alone
	}
	u := s.found.units()
	t.Logf("computed from %+v", u)
	head("### What a cluster bears, computed", "topology", "by", "clusters", "a distrust: origin", "its hub",
		"the last", "an hour of rest: hub", "anybody else", "memory of a member: hub", "anybody else")
	cell := func(c costs, r role) string {
		if is, ok := c[r]; ok {
			return fmt.Sprintf("%d, %s", is.messages, bytesText(is.bytes))
		}
		return "–"
	}
	for _, kind := range []topology{mesh, oneHub, twoLevels} {
		for _, streams := range []bool{true, false} {
			for _, size := range s.large {
				news, rest, memory := u.distrust(kind, size, streams), u.rest(kind, size, streams), u.memory(kind, size,
					streams)
				atHub := "–"
				if held, is := memory[hubRole]; is {
					atHub = bytesText(int(held))
				}
				show(kind, ways(streams), size, cell(news, origin), cell(news, hubRole), cell(news, ordinary),
					cell(rest, hubRole), cell(rest, ordinary), atHub, bytesText(int(memory[ordinary])))
			}
		}
	}
	u.compare(t, &s.found)
}

// compare checks computed costs against those of federations that were simulated whole.
func (u units) compare(t *testing.T, f *found) {
	t.Helper()
	near := func(want, is tally, about string, m measured) {
		require.InEpsilon(t, float64(want.bytes), float64(is.bytes), 0.25, "%s: %s by %s of %d: %+v, computed %+v",
			about, m.topology, ways(m.streams), m.size, want, is)
	}
	for _, m := range f.whole {
		if m.topology == twoLevels { // the mean of all hubs is measured, and of near and far spokes
			last := u.distrust(twoLevels, m.size, m.streams)[ordinary]
			require.LessOrEqual(t, m.news[ordinary].bytes, 3*last.bytes,
				"one map is read, not those of all hubs: %+v", m)
			continue
		}
		for r, is := range u.distrust(m.topology, m.size, m.streams) {
			if m.topology == oneHub && r == origin {
				continue // for a single cluster, one poll or reading by chance matters
			}
			near(m.news[r], is, "a distrust, "+string(r), m)
		}
	}
	for _, m := range f.rested {
		for r, is := range u.rest(m.topology, m.size, m.streams) {
			near(m.rest[r], is, "an hour of rest, "+string(r), m)
		}
	}
}

// TestScaleCosts tests that the computed costs equal the formulas of docs/SCALE.md.
func TestScaleCosts(t *testing.T) {
	one := func(bytes int) map[bool]tally { return map[bool]tally{true: {10, bytes}, false: {1, 2 * bytes}} }
	u := units{
		bundle: tally{
			2,
			20,
		}, word: tally{1, 10}, poll: tally{2, 50}, mapPoll: tally{2, 100}, mapBytes: 30,
		pair: one(1), spoke: one(2), far: one(3),
		rel: map[bool]float64{
			true:  5,
			false: 2,
		}, asHub: map[bool]float64{true: 7, false: 3}, domain: map[bool]float64{true: 1, false: 1},
	}
	const n = 100 // ten hubs with nine spokes each
	require.Equal(t, costs{origin: {198, 1980}, ordinary: {2, 20}}, u.distrust(mesh, n, true))
	require.Equal(t, costs{origin: {3, 30}, hubRole: {101, 1010}, ordinary: {1, 10}}, u.distrust(oneHub, n, true))
	require.Equal(t, costs{origin: {3, 30}, hubRole: {2 + 18 + 2*81, 20 + 180 + 81*370}, ordinary: {2, 370}},
		u.distrust(twoLevels, n, true))
	require.Equal(t, costs{origin: {4, 50 + 3070}, hubRole: {2 + 198, 50 + 99*3070}, ordinary: {2, 3070}},
		u.distrust(oneHub, n, false))
	require.Equal(t, costs{hubRole: {990, 198}, ordinary: {10, 2}}, u.rest(oneHub, n, true))
	require.Equal(t, costs{hubRole: {990, 18*2 + 81*3}, ordinary: {100, 2 + 27}}, u.rest(twoLevels, n, true))
	require.Equal(t, map[role]float64{ordinary: 495}, u.memory(mesh, n, true))
	require.Equal(t, map[role]float64{hubRole: 9*7 + 9*5 + 90, ordinary: 99 + 18}, u.memory(twoLevels, n, true))
	require.Equal(t, map[role]float64{hubRole: 297, ordinary: 99}, u.memory(oneHub, n, false))
}
