package logthrottle

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

func TestKeyOf(t *testing.T) {
	same := func(a, b string) bool {
		return keyOf(hclog.Warn, "raft", a) == keyOf(hclog.Warn, "raft", b)
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"heartbeat timeout reached", "heartbeat timeout reached", true},
		{"lost term 7 to 10.0.0.1:7000", "lost term 12 to 10.0.12.255:70", true},
		{"less than 10 percent free", "less than 5 percent free", true},
		{"lost term 7", "lost term", false},
		{"lost term 7", "won term 7", false},
		{"7", "é7", false},
	} {
		require.Equal(t, c.want, same(c.a, c.b), "%q, %q", c.a, c.b)
	}
	require.NotEqual(t, keyOf(hclog.Warn, "raft", "a"), keyOf(hclog.Error, "raft", "a"))
	require.NotEqual(t, keyOf(hclog.Warn, "raft", "a"), keyOf(hclog.Warn, "port", "a"))
}

func TestAdmit(t *testing.T) {
	start := time.Now()
	lines := table{}
	k := keyOf(hclog.Warn, "raft", "cannot append")
	admit := func(at time.Duration) string {
		omitted, ok := lines.admit(k, "cannot append", nil, start.Add(at))
		if !ok {
			return "left out"
		}
		return fmt.Sprintf("passes, %d before it", omitted)
	}
	for i := range burst {
		require.Equal(t, "passes, 0 before it", admit(time.Duration(i)*time.Second))
	}
	last := (burst - 1) * time.Second
	for _, step := range []struct {
		at   time.Duration
		want string
	}{
		{last, "left out"},
		{last + 40*time.Second, "left out"},
		{last + interval - 1, "left out"},
		{last + interval, "passes, 3 before it"},
		{last + interval + 1, "left out"},
		{last + 2*interval - 1, "left out"},
		{last + 2*interval + 30*time.Second, "passes, 2 before it"},
		{last + 3*interval + 29*time.Second, "left out"},
		{last + 4*interval + 29*time.Second, "passes, 1 before it"}, // absent for the interval: it starts anew
		{last + 4*interval + 29*time.Second, "passes, 0 before it"},
		{last + 5*interval + 30*time.Second, "passes, 0 before it"},
	} {
		require.Equal(t, step.want, admit(step.at), "%v", step.at)
	}
}

func TestEnded(t *testing.T) {
	start := time.Now()
	lines := table{}
	often, seldom := keyOf(hclog.Warn, "raft", "often"), keyOf(hclog.Error, "port", "seldom")
	for range burst + 2 {
		lines.admit(often, "often", nil, start)
	}
	lines.admit(seldom, "seldom", nil, start.Add(time.Second))

	counted, next := lines.ended(start.Add(interval - 1))
	require.Empty(t, counted)
	require.Equal(t, start.Add(interval), next)
	counted, next = lines.ended(start.Add(interval))
	require.Len(t, counted, 1)
	require.Equal(t, line{
		level: hclog.Warn, passed: burst, last: start, seen: start, omitted: 2, message: "often",
	}, *counted[0])
	require.Equal(t, start.Add(interval+time.Second), next)
	counted, next = lines.ended(next)
	require.Empty(t, counted, "nothing was left out")
	require.Zero(t, next)
	require.Empty(t, lines)
}

// TestLinesAreBounded: lines with ever new messages fill neither the memory nor the log.
func TestLinesAreBounded(t *testing.T) {
	start := time.Now()
	lines := table{}
	admitAll := func(level hclog.Level) (passed int) {
		for i := range 3 * maxLines {
			k := key{level: level, name: "raft", text: fmt.Sprint(i)}
			if _, ok := lines.admit(k, k.text, nil, start); ok {
				passed++
			}
		}
		return passed
	}
	require.Equal(t, maxLines+burst, admitAll(hclog.Warn))
	require.Equal(t, burst, admitAll(hclog.Error), "errors do not share the line of warnings")
	require.Len(t, lines, maxLines+2)
}
