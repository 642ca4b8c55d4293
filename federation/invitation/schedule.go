package invitation

import "time"

// An agreement that waits for a consent is exchanged soon, then less often. One in force is exchanged every settledPoll
// if no stream would report its end.
const firstPoll, lastPoll, settledPoll = time.Second, 30 * time.Second, 5 * time.Minute

// schedule is when the next exchange with an other side is due, and the wait before it. soon is true if the other side
// reported a change by itself.
type schedule struct {
	at   time.Time
	wait time.Duration
	soon bool
}

// situation is what decides whether an exchange is due now.
type situation struct {
	// seen is true if a schedule exists, appeared if the relationship is new since the last poll, triggered after a
	// decision of an operator, and owned if this member exchanges at its own pace.
	seen, appeared, triggered, owned bool
	// consented is true if both sides consent, unannounced if the other side may have an outdated list of this
	// cluster's members, and changed if the members have just changed.
	consented, unannounced, changed bool
	// streamed reports whether a stream would report the end by the other side.
	streamed func() bool
}

// after decides whether an exchange is due now, and when the next one is. chance, from 0 to 1, spreads exchanges over
// time.
func (t schedule) after(q situation, now time.Time, chance float64) (next schedule, due bool) {
	switch {
	case q.triggered:
		t.wait = firstPoll
	case !q.owned && !t.soon:
		return t, false
	case !q.seen && q.consented && !q.appeared: // this member has just started or become the owner
		return schedule{now.Add(time.Duration(chance * float64(settledPoll))), settledPoll, false}, false
	case now.Before(t.at) && t.at.Sub(now) <= settledPoll && !q.changed: // due at once if the clock was set back
		return t, false
	case !q.consented:
		t.wait = min(max(2*t.wait, firstPoll), lastPoll)
	case q.changed:
		t.wait = firstPoll // and longer from then on, until it is announced
	case q.unannounced:
		t.wait = min(max(2*t.wait, firstPoll), settledPoll)
	default:
		t.wait = settledPoll
		if !t.soon && q.streamed() {
			return schedule{now.Add(settledPoll), settledPoll, false}, false // its termination notice would arrive
		}
	}
	return schedule{now.Add(time.Duration(float64(t.wait) * (0.75 + chance/4))), t.wait, false}, true
}
