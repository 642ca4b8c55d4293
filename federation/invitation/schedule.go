package invitation

import "time"

// The pace of exchanges. An agreement that lacks a consent is polled soon, then less often; one in force is polled only
// if no stream would report its end.
const firstPoll, lastPoll, settledPoll = time.Second, 30 * time.Second, 5 * time.Minute

// schedule is when the other side of an agreement is polled next, and how long the last interval was. soon is set after
// the other side reported that it has no relationship.
type schedule struct {
	at   time.Time
	wait time.Duration
	soon bool
}

// situation is what decides whether the other side of an agreement is polled now.
type situation struct {
	// seen means that there is a schedule, appeared that the relationship did not exist at the last poll, triggered
	// that an operator has decided, and owned that this member polls it.
	seen, appeared, triggered, owned bool
	// agreed means that both sides consent, unannounced that the other side may not know this cluster's present
	// members, and changed that these have just changed.
	agreed, unannounced, changed bool
	// streamed reports whether a stream would report an end.
	streamed func() bool
}

// after decides whether the other side is polled now, and when it is polled next. chance, from 0 to 1, spreads polls.
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
			return schedule{now.Add(settledPoll), settledPoll, false}, false // its termination would tell
		}
	}
	return schedule{now.Add(time.Duration(float64(t.wait) * (0.75 + chance/4))), t.wait, false}, true
}
