package invitation

import "time"

// An agreement that waits for a consent is asked about soon, then less often; one in force only where no stream would
// tell of its end.
const firstPoll, lastPoll, settledPoll = time.Second, 30 * time.Second, 5 * time.Minute

// asking is when an other side is asked next, and how long was waited for that. soon says that it said something by
// itself.
type schedule struct {
	at   time.Time
	wait time.Duration
	soon bool
}

// question is what decides whether the other side of an agreement is asked now.
type situation struct {
	// seen says that there is a time for it, appeared that there was no such relationship a moment ago, triggered that
	// an operator has decided, owned that it is this member's to ask at its pace.
	seen, appeared, triggered, owned bool
	// agreed says that both sides consent, untold that the other side may know other members of this cluster than there
	// are, and changed that these have just changed.
	agreed, unannounced, changed bool
	// streamed says that a stream would tell of the other side's end.
	streamed func() bool
}

// after decides whether the other side is asked now, and when it is asked next. chance spreads questions, from 0 to 1.
func (t schedule) after(q situation, now time.Time, chance float64) (next schedule, ask bool) {
	switch {
	case q.triggered:
		t.wait = firstPoll
	case !q.owned && !t.soon:
		return t, false
	case !q.seen && q.agreed && !q.appeared: // this member was just started, or has it from another one
		return schedule{now.Add(time.Duration(chance * float64(settledPoll))), settledPoll, false}, false
	case now.Before(t.at) && t.at.Sub(now) <= settledPoll && !q.changed: // a clock that was set back makes it due
		return t, false
	case !q.agreed:
		t.wait = min(max(2*t.wait, firstPoll), lastPoll)
	case q.changed:
		t.wait = firstPoll // and longer from then on, until it was told
	case q.unannounced:
		t.wait = min(max(2*t.wait, firstPoll), settledPoll)
	default:
		t.wait = settledPoll
		if !t.soon && q.streamed() {
			return schedule{now.Add(settledPoll), settledPoll, false}, false // its goodbye would tell
		}
	}
	return schedule{now.Add(time.Duration(float64(t.wait) * (0.75 + chance/4))), t.wait, false}, true
}
