package fetch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/federation/observation"
)

// TestRouteOrder: what works is tried first for a while, and then the configured order counts again.
func TestRouteOrder(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	ok, down := func(m int) observation.Attempt { return observation.Attempt{At: at(m), Result: "stored"} },
		func(m int) observation.Attempt {
			return observation.Attempt{At: at(m), Result: "network", Error: "down"}
		}
	var r route
	require.Equal(t, []int{0, 1, 2}, r.order(3, at(0)))
	r = r.tried(0, 3, down(0)).tried(1, 3, down(0)).tried(2, 3, ok(0))
	require.Equal(t, []int{2, 0, 1}, r.order(3, at(1)))
	r = r.tried(2, 3, ok(10))
	require.Equal(t, []int{2, 0, 1}, r.order(3, at(14)))
	require.Equal(t, []int{0, 1, 2}, r.order(3, at(15)), "going on to work does not prolong it")
	r = r.tried(0, 3, down(15)).tried(1, 3, ok(15))
	require.Equal(t, []int{1, 0, 2}, r.order(3, at(16)))
	require.Equal(
		t,
		[]string{"network", "stored", "stored"},
		[]string{r.attempts[0].Result, r.attempts[1].Result, r.attempts[2].Result},
	)
	r = r.tried(1, 3, down(17)).tried(0, 3, ok(17))
	require.Equal(t, []int{0, 1, 2}, r.order(3, at(18)), "the first one is back")
	require.Equal(t, []int{0}, route{works: 2, since: at(0)}.order(1, at(1)), "fewer endpoints than there were")
}
