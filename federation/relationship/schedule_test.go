package relationship

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInterval(t *testing.T) {
	for _, test := range []struct {
		name   string
		poll   time.Duration
		hint   time.Duration
		hinted bool
		least  time.Duration
		want   time.Duration
	}{
		{"as asked", 0, 2 * time.Minute, true, DefaultMinRefresh, 2 * time.Minute},
		{"no hint", 0, 0, false, DefaultMinRefresh, 5 * time.Minute},
		{"no hint, and a longer minimum", 0, 0, false, time.Hour, time.Hour},
		{"too often", 0, time.Second, true, DefaultMinRefresh, 10 * time.Second},
		{"every second, where it is allowed", 0, time.Second, true, LowestMinRefresh, time.Second},
		{"zero", 0, 0, true, DefaultMinRefresh, 10 * time.Second},
		{"too seldom", 0, 1 << 62, true, DefaultMinRefresh, 24 * time.Hour},
		{"its own interval", 20 * time.Second, time.Hour, true, DefaultMinRefresh, 20 * time.Second},
		{"its own interval, and no hint", time.Hour, 0, false, DefaultMinRefresh, time.Hour},
		{"its own interval, too often for the cluster", 2 * time.Second, 0, true, DefaultMinRefresh, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Interval(test.poll, test.hint, test.hinted, test.least))
		})
	}
}

func TestRetry(t *testing.T) {
	const least, interval = 10 * time.Second, 5 * time.Minute
	for _, test := range []struct {
		name     string
		failures int
		interval time.Duration
		chance   float64
		want     time.Duration
	}{
		{"first, at the earliest", 1, interval, 0, 5 * time.Second},
		{"first, at the latest", 1, interval, 1, 10 * time.Second},
		{"second", 2, interval, 0.5, 15 * time.Second},
		{"fifth", 5, interval, 0.5, 120 * time.Second},
		{"sixth: as often as its turns", 6, interval, 0.5, interval},
		{"ten thousandth", 10_000, interval, 0.5, interval},
		{"an interval that is the shortest", 1, least, 0.5, least},
		{"an interval that is below it", 1, time.Second, 0.5, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Retry(test.failures, test.interval, least, test.chance))
		})
	}
}

func TestTurn(t *testing.T) {
	require.Equal(t, 270*time.Second, Turn(300*time.Second, 0))
	require.Equal(t, 300*time.Second, Turn(300*time.Second, 0.5))
	require.InDelta(t, 330, Turn(300*time.Second, 0.999999).Seconds(), 0.01)
}

func TestTakeover(t *testing.T) {
	require.Equal(t, time.Duration(0), Takeover(time.Hour, 1, 0))
	require.Less(t, Takeover(time.Hour, 1, 0.999), 10*time.Millisecond, "a single one is fetched at once")
	require.Equal(t, 50*time.Second, Takeover(time.Hour, 10_000, 0.5), "ten thousand are spread over 100 s")
	require.Equal(t, 5*time.Second, Takeover(10*time.Second, 10_000, 0.5), "but no turn is missed for it")
}

func TestSpreadOut(t *testing.T) {
	require.Equal(t, time.Duration(0), SpreadOut(time.Hour, 0))
	require.Equal(t, 30*time.Minute, SpreadOut(time.Hour, 0.5))
	require.Less(t, SpreadOut(time.Hour, 0.999999), time.Hour)
}

func TestPacer(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	var p Pacer
	require.Equal(t, start, p.After(start), "the first at once")
	require.Equal(t, start.Add(10*time.Millisecond), p.After(start))
	require.Equal(t, start.Add(20*time.Millisecond), p.After(start.Add(time.Millisecond)))
	require.Equal(t, start.Add(time.Second), p.After(start.Add(time.Second)), "after a pause at once again")
	require.Equal(t, start, p.After(start), "a clock that was set back makes nobody wait")
	require.Equal(t, start.Add(10*time.Millisecond), p.After(start))
}

func TestQueue(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	q := NewQueue()
	_, ok := q.Next()
	require.False(t, ok)
	for name, s := range map[string]int{"e": 5, "b": 2, "d": 4, "a": 1, "c": 3, "x": 9} {
		q.Set(name, at(s))
	}
	q.Remove("d")
	q.Remove("nobody")
	q.Set("x", at(2)) // brought forward, behind b by its name
	q.Set("a", at(6)) // put off
	next, ok := q.Next()
	require.True(t, ok)
	require.Equal(t, at(2), next)
	due := func(s int) (names []string) {
		for name, ok := q.Due(at(s)); ok; name, ok = q.Due(at(s)) {
			names = append(names, name)
		}
		return names
	}
	require.Empty(t, due(1))
	require.Equal(t, []string{"b", "x", "c"}, due(3))
	require.Equal(t, []string{"e", "a"}, due(100))
	_, ok = q.Next()
	require.False(t, ok)
}
