package federation

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ententehq/entente/federation/relationship"
)

// model says after how long each cluster knows of a distrust, by nothing but the rules that docs/SCALE.md states: for
// sizes that are too large to be simulated whole. Those that can be hold it to the truth.
type model struct {
	w      *world // for its latencies
	chance *rand.Rand
}

func newModel() *model {
	return &model{w: &world{seed: "entente"}, chance: rand.New(rand.NewPCG(1, 2))}
}

// turn is when a relationship's next turn comes, seen from any moment.
func (m *model) turn() time.Duration {
	return time.Duration(m.chance.Float64() * float64(relationship.Turn(simHint, m.chance.Float64())))
}

// poll is how long a poll takes: TCP, TLS, and the request, each there and back; the bundle's and then the map's, if
// that is read.
func (m *model) poll(a, b string, withMap bool) time.Duration {
	trips := 6
	if withMap {
		trips *= 2
	}
	return time.Duration(trips) * m.w.latency(a, b)
}

// distrust is of the last cluster.
func (m *model) distrust(kind topology, size int, streams bool) []time.Duration {
	names := make([]string, size)
	for i := range names {
		names[i] = simName(i)
	}
	last, hubs := size-1, kind.hubs(size)
	direct := func(i int) time.Duration {
		if streams {
			return m.w.latency(names[i], names[last])
		}
		return m.turn() + m.poll(names[i], names[last], false)
	}
	var took []time.Duration
	if kind == mesh {
		for i := range last {
			took = append(took, direct(i))
		}
	} else {
		own := last % hubs
		known := direct(own)
		took = append(took, known)
		for i := range last {
			switch {
			case i == own:
			case streams && kind.streamed(i, own, hubs):
				took = append(took, known+m.w.latency(names[i], names[own]))
			default:
				took = append(took, known+m.turn()+m.poll(names[i], names[own], true))
			}
		}
	}
	slices.Sort(took)
	return took
}

// rounds is what comes of a hundred distrusts or more, of ten thousand clusters or more that hear of one.
func (m *model) rounds(kind topology, size int, streams bool) (took []time.Duration) {
	for round := 0; round < 100 || len(took) < 10_000; round++ {
		took = append(took, m.distrust(kind, size, streams)...)
	}
	slices.Sort(took)
	return took
}

// quantile is the smallest value that so large a part does not exceed.
func quantile(sorted []time.Duration, part float64) time.Duration {
	return sorted[max(0, int(math.Ceil(part*float64(len(sorted))))-1)]
}
