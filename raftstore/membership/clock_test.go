package membership

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// after is a later reading: passed has passed, and the wall clock was set by set.
func (r reading) after(passed, set time.Duration) reading {
	return reading{wall: r.wall.Add(passed + set), steady: r.steady + passed}
}

// A member whose clock is set a day off must not act by it in the moment before the next heartbeat, nor one that was
// wrong begin to act before its clock was measured.
func TestAVerdictEndsWhenTheClockIsSet(t *testing.T) {
	then := readClocks()
	right := clockVerdict{known: true, distance: time.Second, read: then}
	wrong := clockVerdict{known: true, distance: 24 * time.Hour, read: then}
	for name, c := range map[string]struct {
		verdict clockVerdict
		now     reading
		want    bool
	}{
		"time passes":             {right, then.after(time.Hour, 0), true},
		"a time service corrects": {right, then.after(time.Second, -30*time.Second), true},
		"a day ahead":             {right, then.after(time.Millisecond, 24*time.Hour), false},
		"a day back":              {right, then.after(time.Millisecond, -24*time.Hour), false},
		"corrected, not measured": {wrong, then.after(time.Second, -24*time.Hour), false},
		"nothing is known":        {clockVerdict{read: then}, then.after(time.Second, 0), false},
	} {
		assert.Equal(t, c.want, c.verdict.sane(c.now), name)
	}
}

// After the leader's clock is set, the offsets of earlier heartbeats show that its clock is the one that is off.
func TestOffsetsFollowTheLeadersClock(t *testing.T) {
	then := readClocks()
	b := beat{read: then, offset: 2 * time.Second}
	assert.Equal(t, 2*time.Second, b.offsetNow(then.after(time.Second, 0)))
	for _, set := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		now := then.after(time.Second, set)
		assert.Equal(t, 2*time.Second-set, b.offsetNow(now))
		distance, known := clockDistance(
			map[string]time.Duration{"leader": 0, "b": b.offsetNow(now), "c": b.offsetNow(now)},
			"leader",
			3,
		)
		assert.True(t, known)
		assert.Greater(t, distance, maxClockDistance)
	}
}
