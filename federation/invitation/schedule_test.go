package invitation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSchedule tests when an exchange of consents is due.
func TestSchedule(t *testing.T) {
	now := someTime
	minute := schedule{at: now.Add(time.Minute), wait: settledPoll}
	overdue := schedule{at: now, wait: 4 * time.Second}
	never := func() bool { t.Error("streamed was called"); return false }
	stream := func(up bool) func() bool { return func() bool { return up } }
	for name, c := range map[string]struct {
		was  schedule
		q    situation
		due  bool
		wait time.Duration
	}{
		"another member's":               {overdue, situation{seen: true, streamed: never}, false, 4 * time.Second},
		"another member's, decided here": {overdue, situation{triggered: true, streamed: never}, true, firstPoll},
		"another member's, reported here": {schedule{at: now, soon: true},
			situation{seen: true, consented: true, streamed: stream(true)}, true, settledPoll},
		"not yet": {minute, situation{seen: true, owned: true, consented: true, streamed: never},
			false, settledPoll},
		"the clock was set back": {schedule{at: now.Add(time.Hour)},
			situation{seen: true, owned: true, consented: true, streamed: stream(false)}, true, settledPoll},
		"a new one that waits": {schedule{}, situation{owned: true, unannounced: true, streamed: never}, true,
			firstPoll},
		"it waits for long": {schedule{at: now, wait: lastPoll},
			situation{seen: true, owned: true, streamed: never}, true, lastPoll},
		"the member was just started": {schedule{},
			situation{owned: true, consented: true, unannounced: true, streamed: never}, false, settledPoll},
		"a restore brought it back": {schedule{},
			situation{appeared: true, owned: true, consented: true, streamed: stream(false)}, true, settledPoll},
		"a stream would report": {overdue,
			situation{seen: true, owned: true, consented: true, streamed: stream(true)}, false, settledPoll},
		"no stream would report": {overdue,
			situation{seen: true, owned: true, consented: true, streamed: stream(false)}, true, settledPoll},
		"the members changed": {minute,
			situation{seen: true, owned: true, consented: true, unannounced: true, changed: true,
				streamed: never}, true, firstPoll},
		"the other side was not reached": {overdue,
			situation{seen: true, owned: true, consented: true, unannounced: true,
				streamed: never}, true, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			next, due := c.was.after(c.q, now, 1)
			require.Equal(t, c.due, due)
			require.Equal(t, c.wait, next.wait)
			if due {
				require.Equal(t, schedule{at: now.Add(c.wait), wait: c.wait}, next)
			}
		})
	}
	early, _ := schedule{}.after(situation{owned: true, consented: true, streamed: never}, now, 0.25)
	require.Equal(t, now.Add(settledPoll/4), early.at, "members that start together do not call together")
}
