package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestScaleMesh: in a mesh with streams a distrust reaches everybody in the time that one message takes, and costs what the formula of
// docs/SCALE.md says.
func TestScaleMesh(t *testing.T) {
	const size = 8
	m := measure(t, mesh, size, true, 0)
	require.Len(t, m.took, size-1)
	require.LessOrEqual(t, m.took[size-2], simFarthest, "the way to the farthest, once")
	require.Equal(t, 2*(size-1), m.news[origin].messages, "to each the bundle, from each the acknowledgement")
	require.Equal(t, 2, m.news[ordinary].messages)
}

// TestScaleMeshWithoutStreams: by polling alone it reaches everybody within a turn.
func TestScaleMeshWithoutStreams(t *testing.T) {
	const size = 8
	m := measure(t, mesh, size, false, time.Hour)
	require.Len(t, m.took, size-1)
	require.LessOrEqual(t, m.took[size-2], Turn(simHint, 1)+20*simFarthest)
	polls := float64(m.rest[ordinary].messages) / 2 / float64(size-1) // both ways, each a request and an answer
	require.InDelta(t, 2*(1+float64(time.Hour/simHint)), polls, 2, "twelve turns each way, and the statements")
}

// TestScaleHubs: a spoke's distrust reaches its hub as fast as a message, and everybody else with their next reading of the hub's map; no
// spoke has a relationship with another.
func TestScaleHubs(t *testing.T) {
	for _, kind := range []topology{oneHub, twoLevels} {
		t.Run(string(kind), func(t *testing.T) {
			const size = 9
			m := measure(t, kind, size, true, 0)
			require.Len(t, m.took, size-1)
			require.LessOrEqual(t, m.took[0], simFarthest, "the hub")
			require.LessOrEqual(t, m.took[size-2], Turn(simHint, 1)+20*simFarthest, "the last spoke")
		})
	}
}
