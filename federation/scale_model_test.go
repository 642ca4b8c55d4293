package federation

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ententehq/entente/federation/relationship"
)

// model computes when each cluster receives a distrust from the rules in docs/SCALE.md alone, for sizes that are too
// large to simulate. Simulated sizes verify it.
type model struct {
	w      *world // for its latencies
	chance *rand.Rand
}

func newModel() *model {
	return &model{w: &world{seed: "entente"}, chance: rand.New(rand.NewPCG(1, 2))}
}

// turn returns the time until a relationship's next turn, from a random moment.
func (m *model) turn() time.Duration {
	return time.Duration(m.chance.Float64() * float64(relationship.Turn(simHint, m.chance.Float64())))
}

// poll returns the duration of a poll: TCP, TLS and the request, each a round trip; for the bundle and then, if it is
// read, for the map.
func (m *model) poll(a, b string, withMap bool) time.Duration {
	trips := 6
	if withMap {
		trips *= 2
	}
	return time.Duration(trips) * m.w.latency(a, b)
}

// distrust returns the times of a distrust by the last cluster.
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

// rounds returns the times of at least a hundred distrusts and ten thousand receiving clusters.
func (m *model) rounds(kind topology, size int, streams bool) (took []time.Duration) {
	for round := 0; round < 100 || len(took) < 10_000; round++ {
		took = append(took, m.distrust(kind, size, streams)...)
	}
	slices.Sort(took)
	return took
}

// quantile returns the smallest value that is not exceeded by the given part.
func quantile(sorted []time.Duration, part float64) time.Duration {
	return sorted[max(0, int(math.Ceil(part*float64(len(sorted))))-1)]
}
