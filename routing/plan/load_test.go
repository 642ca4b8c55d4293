package plan

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func policy(t testing.TB, s Settings) *Policy {
	t.Helper()
	p, err := NewPolicy(s)
	require.NoError(t, err)
	return p
}

func percent(n int) *int { return &n }

// of returns a tally of 100 endpoints, such as "25% healthy".
func of(healthy, degraded uint64) tally {
	return tally{healthy: healthy, degraded: degraded, total: 100}
}

func TestLoads(t *testing.T) {
	type want = []load
	for _, test := range []struct {
		name       string
		settings   Settings
		priorities []tally
		want       want
	}{
		// The rows of Envoy's documentation, or of its code where they differ.
		{"100/100/100", Settings{}, []tally{of(100, 0), of(100, 0), of(100, 0)}, want{{100, 0, false}, {}, {}}},
		{"72/72/100", Settings{}, []tally{of(72, 0), of(72, 0), of(100, 0)}, want{{100, 0, false}, {}, {}}},
		{"71/71/100", Settings{}, []tally{of(71, 0), of(71, 0), of(100, 0)}, want{{99, 0, false}, {1, 0, false}, {}}},
		{"50/50/100", Settings{}, []tally{of(50, 0), of(50, 0), of(100, 0)}, want{{70, 0, false}, {30, 0, false}, {}}},
		{
			"25/100/100",
			Settings{},
			[]tally{of(25, 0), of(100, 0), of(100, 0)},
			want{{35, 0, false}, {65, 0, false}, {}},
		},
		{
			"25/25/100",
			Settings{},
			[]tally{of(25, 0), of(25, 0), of(100, 0)},
			want{{35, 0, false}, {35, 0, false}, {30, 0, false}},
		},
		{
			"25/25/20, panic off",
			Settings{PanicThreshold: percent(0)},
			[]tally{of(25, 0), of(25, 0), of(20, 0)},
			want{{37, 0, false}, {35, 0, false}, {28, 0, false}},
		},
		{"0/100", Settings{}, []tally{of(0, 0), of(100, 0)}, want{{}, {100, 0, false}}},
		{
			"50/60: Envoy's page on panic says 50/50",
			Settings{},
			[]tally{of(50, 0), of(60, 0)},
			want{{70, 0, false}, {30, 0, false}},
		},
		{
			"25/100: Envoy's page on panic says 25/75",
			Settings{},
			[]tally{of(25, 0), of(100, 0)},
			want{{35, 0, false}, {65, 0, false}},
		},
		{
			"5/65: Envoy's page on panic says 7/93",
			Settings{},
			[]tally{of(5, 0), of(65, 0)},
			want{{8, 0, true}, {92, 0, false}},
		},
		{
			"25/25: both in panic, by their sizes",
			Settings{},
			[]tally{of(25, 0), of(25, 0)},
			want{{50, 0, true}, {50, 0, true}},
		},
		{
			"0/0: Envoy's page on panic says all to P0",
			Settings{},
			[]tally{of(0, 0), {total: 300}},
			want{{25, 0, true}, {75, 0, true}},
		},

		{
			"degraded endpoints come after every healthy one",
			Settings{},
			[]tally{of(0, 100), of(50, 0)},
			want{{0, 30, false}, {70, 0, false}},
		},
		{"a priority with both", Settings{}, []tally{of(50, 50)}, want{{70, 30, false}}},
		{
			"the example in Envoy's code",
			Settings{OverprovisioningFactor: 100, PanicThreshold: percent(0)},
			[]tally{of(10, 20), of(20, 10), of(10, 0)},
			want{{16, 28, false}, {28, 14, false}, {14, 0, false}},
		},
		{
			"only degraded ones",
			Settings{PanicThreshold: percent(0)},
			[]tally{of(0, 10), of(0, 20), of(0, 3)},
			want{{0, 32, false}, {0, 60, false}, {0, 8, false}},
		},
		{
			"a remainder goes to the first degraded one",
			Settings{PanicThreshold: percent(0)},
			[]tally{of(0, 0), of(0, 10), of(0, 20), of(0, 5)},
			want{{}, {0, 29, false}, {0, 57, false}, {0, 14, false}},
		},
		{"degraded ones count against panic", Settings{}, []tally{of(20, 30)}, want{{40, 60, false}}},

		{"one priority below the threshold", Settings{}, []tally{of(49, 0)}, want{{100, 0, true}}},
		{"one priority at the threshold", Settings{}, []tally{of(50, 0)}, want{{100, 0, false}}},
		{
			"no panic while there is enough elsewhere",
			Settings{},
			[]tally{of(1, 0), of(80, 0)},
			want{{1, 0, false}, {99, 0, false}},
		},
		{
			"another threshold",
			Settings{PanicThreshold: percent(10)},
			[]tally{of(9, 0), of(10, 0)},
			want{{47, 0, true}, {53, 0, false}},
		},
		{
			"panic by size: the rest to the first",
			Settings{},
			[]tally{{total: 1}, {total: 1}, {total: 1}},
			want{{34, 0, true}, {33, 0, true}, {33, 0, true}},
		},
		{
			"nothing available, panic off",
			Settings{PanicThreshold: percent(0)},
			[]tally{of(0, 0), of(0, 0)},
			want{{}, {}},
		},
		{
			"too few to count, panic off",
			Settings{PanicThreshold: percent(0)},
			[]tally{{degraded: 1, total: 300}, {healthy: 1, total: 300}},
			want{{}, {100, 0, false}},
		},
		{
			"too few degraded ones to count, panic off",
			Settings{PanicThreshold: percent(0)},
			[]tally{{total: 300}, {degraded: 1, total: 300}},
			want{{}, {0, 100, false}},
		},
		{
			"too few to count, and too many for a panic",
			Settings{PanicThreshold: percent(1)},
			[]tally{{healthy: 1, degraded: 1, total: 150}},
			want{{100, 0, false}},
		},
		{
			"the same behind one that is in panic",
			Settings{PanicThreshold: percent(1)},
			[]tally{{healthy: 1, total: 400}, {healthy: 1, degraded: 1, total: 150}},
			want{{0, 0, true}, {100, 0, false}},
		},
		{"nobody at all", Settings{}, nil, want{}},

		{
			"a failover threshold of 70 percent is a factor of 142",
			Settings{FailoverThreshold: 70},
			[]tally{of(70, 0), of(100, 0)},
			want{{99, 0, false}, {1, 0, false}},
		},
		{
			"a failover threshold of 100 percent: no overprovisioning",
			Settings{FailoverThreshold: 100},
			[]tally{of(99, 0), of(100, 0)},
			want{{99, 0, false}, {1, 0, false}},
		},
		{
			"a failover threshold of 1 percent",
			Settings{FailoverThreshold: 1},
			[]tally{of(1, 0), of(100, 0)},
			want{{100, 0, false}, {}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, policy(t, test.settings).loads(test.priorities))
		})
	}
}

// TestShares: localities with the weights 1 and 2, of which the second is fully available.
func TestShares(t *testing.T) {
	for _, test := range []struct{ available, total, want uint64 }{
		{100, 100, 33}, {70, 100, 33}, {69, 100, 32}, {50, 100, 26}, {25, 100, 15}, {0, 100, 0},
	} {
		t.Run(fmt.Sprint(test.available), func(t *testing.T) {
			got := percentages([]uint64{
				effective(DefaultOverprovisioning, 1, test.available, test.total),
				effective(DefaultOverprovisioning, 2, 100, 100),
			})
			require.Equal(t, []uint64{test.want, 100 - test.want}, got)
		})
	}
}

func TestPercentages(t *testing.T) {
	require.Equal(t, []uint64{34, 33, 33}, percentages([]uint64{7, 7, 7}))
	require.Equal(t, []uint64{0, 0}, percentages([]uint64{0, 0}))
	require.Equal(t, []uint64{100}, percentages([]uint64{1 << 62}))
	require.Equal(t, []uint64{0, 50, 50}, percentages([]uint64{0, 1 << 62, 1 << 62}))
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint64Range(0, 1<<40), 1, 20).Draw(t, "weights")
		got := percentages(weights)
		var weight, sum uint64
		for i := range weights {
			weight += weights[i]
			sum += got[i]
			if weights[i] == 0 {
				require.Zero(t, got[i], "a weight of 0 got a share")
			}
			for j := range weights[:i] {
				if weights[i] > weights[j] {
					require.GreaterOrEqual(t, got[i], got[j], "a heavier locality got less")
				}
			}
		}
		if weight > 0 {
			require.EqualValues(t, 100, sum)
		} else {
			require.Zero(t, sum)
		}
	})
}

func drawTallies(t *rapid.T) []tally {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) tally {
		total := rapid.Uint64Range(1, 400).Draw(t, "total")
		healthy := rapid.Uint64Range(0, total).Draw(t, "healthy")
		return tally{healthy: healthy, degraded: rapid.Uint64Range(0, total-healthy).Draw(t, "degraded"), total: total}
	}), 1, 6).Draw(t, "priorities")
}

func drawPolicy(t *rapid.T) *Policy {
	p := DefaultPolicy()
	p.factor = rapid.Uint64Range(minOverprovisioning, maxOverprovisioning).Draw(t, "factor")
	p.panicBelow = rapid.Uint64Range(0, 100).Draw(t, "panic")
	p.stale = rapid.SampledFrom([]StaleMode{StaleDemote, StaleKeep, StaleDrop}).Draw(t, "stale")
	return p
}

func TestLoadsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, priorities := drawPolicy(t), drawTallies(t)
		var sum, available uint64
		panics := 0
		loads := p.loads(priorities)
		for i, l := range loads {
			sum += l.healthy + l.degraded
			available += priorities[i].healthy + priorities[i].degraded
			if l.panic {
				panics++
				continue
			}
			if l.healthy > 0 {
				require.NotZero(t, priorities[i].healthy, "load without a healthy endpoint to take it")
			}
			if l.degraded > 0 {
				require.NotZero(t, priorities[i].degraded, "load without a degraded endpoint to take it")
			}
		}
		if available == 0 && p.panicBelow == 0 {
			require.Zero(t, sum)
			return
		}
		require.EqualValues(t, 100, sum)
		if p.panicBelow == 0 {
			require.Zero(t, panics)
		}
	})
}

// TestLoadIsMonotonic: more healthy endpoints in a priority never lead to less load for it, unless there is a panic.
func TestLoadIsMonotonic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, priorities := drawPolicy(t), drawTallies(t)
		p.panicBelow = 0
		i := rapid.IntRange(0, len(priorities)-1).Draw(t, "which")
		if priorities[i].healthy+priorities[i].degraded == priorities[i].total {
			return
		}
		before := p.loads(priorities)
		priorities[i].healthy++
		after := p.loads(priorities)
		require.GreaterOrEqual(t, after[i].healthy, before[i].healthy)
		// The remainder of rounding goes to the first priority with load, which can be another one afterwards.
		slack := uint64(2 * len(priorities))
		for j := range priorities[:i] {
			require.LessOrEqual(
				t,
				after[j].healthy,
				before[j].healthy+slack,
				"recovery of a later priority gave more to an earlier one",
			)
		}
	})
}
