package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInterval(t *testing.T) {
	for _, test := range []struct {
		name   string
		hint   time.Duration
		hinted bool
		least  time.Duration
		want   time.Duration
	}{
		{"as asked", 2 * time.Minute, true, DefaultMinRefresh, 2 * time.Minute},
		{"no hint", 0, false, DefaultMinRefresh, 5 * time.Minute},
		{"no hint, and a longer minimum", 0, false, time.Hour, time.Hour},
		{"too often", time.Second, true, DefaultMinRefresh, 10 * time.Second},
		{"every second, where it is allowed", time.Second, true, LowestMinRefresh, time.Second},
		{"zero", 0, true, DefaultMinRefresh, 10 * time.Second},
		{"too seldom", 1 << 62, true, DefaultMinRefresh, 24 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Interval(test.hint, test.hinted, test.least))
		})
	}
}

func TestTurn(t *testing.T) {
	require.Equal(t, 270*time.Second, Turn(300*time.Second, 0))
	require.Equal(t, 300*time.Second, Turn(300*time.Second, 0.5))
	require.InDelta(t, 330, Turn(300*time.Second, 0.999999).Seconds(), 0.01)
}

func TestTakeover(t *testing.T) {
	require.Equal(t, time.Duration(0), takeover(time.Hour, 1, 0))
	require.Less(t, takeover(time.Hour, 1, 0.999), 10*time.Millisecond, "a single one is fetched at once")
	require.Equal(t, 50*time.Second, takeover(time.Hour, 10_000, 0.5), "ten thousand are spread over 100 s")
	require.Equal(t, 5*time.Second, takeover(10*time.Second, 10_000, 0.5), "but no turn is missed for it")
}

func TestSpreadOut(t *testing.T) {
	require.Equal(t, time.Duration(0), spreadOut(time.Hour, 0))
	require.Equal(t, 30*time.Minute, spreadOut(time.Hour, 0.5))
	require.Less(t, spreadOut(time.Hour, 0.999999), time.Hour)
}

func TestPacer(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	var p pacer
	require.Equal(t, start, p.after(start), "the first at once")
	require.Equal(t, start.Add(10*time.Millisecond), p.after(start))
	require.Equal(t, start.Add(20*time.Millisecond), p.after(start.Add(time.Millisecond)))
	require.Equal(t, start.Add(time.Second), p.after(start.Add(time.Second)), "after a pause at once again")
	require.Equal(t, start, p.after(start), "a clock that was set back makes nobody wait")
	require.Equal(t, start.Add(10*time.Millisecond), p.after(start))
}

func TestQueue(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	q := newQueue()
	_, ok := q.next()
	require.False(t, ok)
	for name, s := range map[string]int{"e": 5, "b": 2, "d": 4, "a": 1, "c": 3, "x": 9} {
		q.set(name, at(s))
	}
	q.remove("d")
	q.remove("nobody")
	q.set("x", at(2)) // brought forward, behind b by its name
	q.set("a", at(6)) // put off
	next, ok := q.next()
	require.True(t, ok)
	require.Equal(t, at(2), next)
	due := func(s int) (names []string) {
		for name, ok := q.due(at(s)); ok; name, ok = q.due(at(s)) {
			names = append(names, name)
		}
		return names
	}
	require.Empty(t, due(1))
	require.Equal(t, []string{"b", "x", "c"}, due(3))
	require.Equal(t, []string{"e", "a"}, due(100))
	_, ok = q.next()
	require.False(t, ok)
}
