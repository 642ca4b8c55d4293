package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/shorttest"
)

// TestScaleMesh tests that, in a mesh with streams, a distrust reaches all clusters in the time of one message, at the
// cost that the formula of docs/SCALE.md gives.
func TestScaleMesh(t *testing.T) {
	const size = 8
	m := measure(t, mesh, size, true, 0, 1)
	require.Len(t, m.took, size-1)
	require.LessOrEqual(t, m.took[size-2], simFarthest, "the way to the farthest, once")
	// A bundle to each, and an acknowledgement from each. The acknowledgement is sent twice if the table changes before
	// the session knows that the bundle is stored.
	require.GreaterOrEqual(t, m.news[origin].messages, 2*(size-1))
	require.LessOrEqual(t, m.news[origin].messages, 3*(size-1))
	require.LessOrEqual(t, m.news[ordinary].messages, 3)
}

// TestScaleMeshWithoutStreams tests that a distrust reaches all clusters within one turn by polling alone.
func TestScaleMeshWithoutStreams(t *testing.T) {
	const size = 8
	m := measure(t, mesh, size, false, time.Hour, 1)
	require.Len(t, m.took, size-1)
	require.LessOrEqual(t, m.took[size-2], relationship.Turn(simHint, 1)+20*simFarthest)
	polls := float64(m.rest[ordinary].messages) / 2 / float64(size-1) // both ways, each a request and an answer
	require.InDelta(t, 2*(1+float64(time.Hour/simHint)), polls, 2, "twelve turns each way, and the statements")
}

// TestScaleHub tests that a spoke's distrust reaches all other spokes over a hub with streams in the time of two
// messages, without relationships between spokes.
func TestScaleHub(t *testing.T) {
	const size = 9
	m := measure(t, oneHub, size, true, 0, 1)
	require.Len(t, m.took, size-1)
	require.LessOrEqual(t, m.took[0], simFarthest, "the hub")
	require.LessOrEqual(t, m.took[size-2], 2*simFarthest+10*time.Millisecond, "the last spoke")
	require.Equal(t, newModel().distrust(oneHub, size, true)[size-2].Round(10*time.Millisecond),
		m.took[size-2].Round(10*time.Millisecond))
}

// TestScaleTwoLevels tests that regional hubs do the same within a region, and that a distrust reaches other regions
// with the next poll of the hub's map.
func TestScaleTwoLevels(t *testing.T) {
	const size = 9 // three hubs with two spokes each
	m := measure(t, twoLevels, size, true, 0, 1)
	require.Len(t, m.took, size-1)
	require.LessOrEqual(t, m.took[3], 2*simFarthest+10*time.Millisecond,
		"three hubs, and the other spoke of the region")
	require.LessOrEqual(t, m.took[size-2], relationship.Turn(simHint, 1)+20*simFarthest, "the spokes of other regions")
}

// TestScalePolls tests that the polls of three members are spread over time and members, that a change of leader does
// not change that, and that the other members fetch the relationships of a dead member once.
func TestScalePolls(t *testing.T) {
	shorttest.Skip(t, "forms a cluster of several members")
	const size, hint, turns = 121, time.Minute, 2
	const even = 2.5 // with a mean of twenty polls per window, chance alone makes it 1.5 at times
	usual := float64(size - 1)
	s := spreadOf(t, size, false, hint, turns)
	require.InEpsilon(t, turns*usual, float64(s.rest.count), 0.1)
	require.Less(t, s.rest.ratio(), even, "%+v", s)
	for _, share := range s.shares {
		require.InEpsilon(t, turns*usual/3, float64(share), 0.5, "%v", s.shares)
	}
	require.InEpsilon(t, 2*usual, float64(s.handover.count), 0.2, "nothing is fetched because another member leads")
	require.Less(t, s.handover.ratio(), even, "%+v", s)
	require.Less(t, float64(s.death.count), 2*usual+usual/2, "%+v", s)
	require.Less(t, s.later.ratio(), even, "%+v", s)
}

// TestScalePollsBesideStreams tests that little is polled while streams are open, that no stream ends with a change of
// leader, and that no bundle is fetched twice after the death of a member.
func TestScalePollsBesideStreams(t *testing.T) {
	shorttest.Skip(t, "forms a cluster of several members")
	const size, hint, turns = 121, time.Minute, 2
	s := spreadOf(t, size, true, hint, turns)
	require.Less(t, s.rest.count, size/4, "%+v", s)
	require.Less(t, s.handover.count, size/4, "%+v", s)
	require.LessOrEqual(t, s.death.count, size+size/4, "%+v", s)
	require.Less(t, s.later.count, size/4, "%+v", s)
	require.LessOrEqual(t, s.dialed.count, size, "%+v", s)
	require.Zero(t, s.stale, "a change of leader makes nothing stale")
}

// TestScaleLightPeers tests that one real cluster among light peers measures the same as a federation of real clusters,
// so that it can stand for one that is too large to simulate.
func TestScaleLightPeers(t *testing.T) {
	const size = 12
	all, one := measure(t, mesh, size, true, 0, 1), growMesh(t, size, true)
	require.Len(t, one.took, len(all.took))
	require.InEpsilon(t, all.news[origin].messages, one.news.messages, 0.5)
	require.InEpsilon(t, all.news[origin].bytes, one.news.bytes, 0.2)
	require.LessOrEqual(t, one.took[size-2], simFarthest)

	h := growHub(t, size, true)
	require.LessOrEqual(t, h.took[0], simFarthest, "the hub has received the distrust")
	spoke := growSpoke(t, size)
	require.LessOrEqual(t, spoke.took[0], relationship.Turn(simHint, 1)+20*simFarthest, "and the spoke by its map")
	require.InEpsilon(t, h.mapBytes, spoke.news.bytes, 0.2, "which it reads whole")

	near := growStreamedSpoke(t, size)
	require.LessOrEqual(t, near.took[0], 2*simFarthest+10*time.Millisecond, "or by two messages")
	require.Equal(t, 2, near.news.messages, "one with the bundle, and its acknowledgement")
}
