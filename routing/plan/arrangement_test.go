package plan

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust/standing"
)

// TestArrangementServesAllCallers: the plan of one caller does not change those of others, and every instance occurs in
// each hint, either offered or excluded with a reason and its locality.
func TestArrangementServesAllCallers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, given := drawPolicy(t), drawEndpoints(t)
		p.stale = rapid.SampledFrom([]StaleMode{StaleDemote, StaleKeep, StaleDrop}).Draw(t, "stale")
		if rapid.Bool().Draw(t, "distribution") {
			p.distribution = []distribution{
				{
					from:    Locality{Region: "a"},
					targets: []target{{Locality{Region: "a", Zone: "b"}, 30}, {Locality{Region: "b"}, 70}},
				},
			}
		}
		callers := []Locality{{"a", "b", "c"}, {"b", "a", ""}, {"c", "c", "c"}, {"a", "b", "c"}}
		shared := p.Arrange(given)
		for _, caller := range callers {
			plan, alone := shared.Plan(caller), p.Plan(caller, given)
			require.Equal(t, transcript(alone), transcript(plan))
			h := plan.Hint("shop", caller, 1)
			require.True(t, proto.Equal(alone.Hint("shop", caller, 1), h))
			named := len(h.GetExcluded())
			for _, x := range h.GetExcluded() {
				require.NotEmpty(t, x.GetReason())
				require.NotEmpty(t, x.GetLocality().GetRegion())
			}
			for _, priority := range h.GetPriorities() {
				for _, l := range priority.GetLocalities() {
					named += len(l.GetEndpoints())
					for _, e := range l.GetEndpoints() {
						require.True(
							t,
							priority.GetPanic() || e.GetHealth() <= ententev1.Health_HEALTH_DEGRADED,
							"%s is offered",
							e,
						)
					}
				}
			}
			require.Equal(t, len(given), named)
		}
	})
}

// TestArrangementsAreCached: an arrangement is built once for all callers who see the same, and the number of cached
// arrangements is bounded.
func TestArrangementsAreCached(t *testing.T) {
	p, made := DefaultPolicy(), 0
	var kept Arrangements
	get := func(state standing.State) *Arrangement {
		return kept.Get(p, []standing.State{state}, func() []Endpoint {
			made++
			return nil
		})
	}
	first := get(standing.Fresh)
	require.Same(t, first, get(standing.Fresh))
	require.NotSame(t, first, get(standing.Stale))
	require.Equal(t, 2, made)
	for n := range 100 {
		get(standing.State(n))
		require.LessOrEqual(t, len(kept.cached), maxArrangements)
	}
}
