package relationship

import (
	"time"
)

const (
	// DefaultMinRefresh is the shortest interval that a peer can ask to be polled at, unless configured otherwise.
	DefaultMinRefresh = 10 * time.Second
	// LowestMinRefresh is the least that DefaultMinRefresh can be replaced by.
	LowestMinRefresh = time.Second
	// MaxRefresh is the longest interval that a peer can ask for: a revoked key has to become known within a day.
	MaxRefresh = 24 * time.Hour
	// DefaultRefresh is the interval where a bundle names none, as the SPIFFE federation specification has it.
	DefaultRefresh = 5 * time.Minute
	// jitter is the part of an interval by which a turn can come earlier or later.
	jitter = 0.1
	// TakeoverPace is how far apart a member begins with relationships that it takes over, at its start or when another
	// member died, and with what was kept over streams that broke together: a few begin at once, and thousands do not
	// make it more than a hundred handshakes a second.
	TakeoverPace = 10 * time.Millisecond
	// SafetyPoll is how often a bundle is fetched that a peer keeps up to date over a stream: so that the endpoint is
	// known to work before it is needed.
	SafetyPoll = time.Hour
	// StoreRetry is how long a fetched bundle that this cluster could not store, for want of a leader say, waits to be
	// fetched again: the fault is not the peer's, so that its turn need not be waited for.
	StoreRetry = 10 * time.Second
)

// Interval returns at which interval a bundle is fetched: its refresh hint, not below least and not above [MaxRefresh],
// or [DefaultRefresh] when it has none.
func Interval(hint time.Duration, hinted bool, least time.Duration) time.Duration {
	if !hinted {
		return max(DefaultRefresh, least)
	}
	return min(max(hint, least), MaxRefresh)
}

// Turn returns how long after an attempt the next one comes: the interval, give or take a tenth of it. chance is a
// number in [0, 1).
func Turn(interval time.Duration, chance float64) time.Duration {
	return time.Duration(float64(interval) * (1 - jitter + 2*jitter*chance))
}

// SpreadOut returns how long after its first fetch a relationship that a member took over together with others has its
// second: at any time within the interval, so that what began together does not go on together. chance is a number in
// [0, 1).
func SpreadOut(interval time.Duration, chance float64) time.Duration {
	return time.Duration(float64(interval) * chance)
}

// Pacer has what comes all at once begin one after the other, at takeoverPace. The first begins at once.
type Pacer struct{ asked, next time.Time }

// After returns when one more may begin. For a clock that was set back nobody waits.
func (p *Pacer) After(now time.Time) time.Time {
	if now.Before(p.asked) || p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.asked, p.next = now, at.Add(TakeoverPace)
	return at
}

// Takeover returns when one of count relationships that a member took over together is first fetched. chance is a
// number in [0, 1).
func Takeover(interval time.Duration, count int, chance float64) time.Duration {
	window := min(interval, time.Duration(count)*TakeoverPace)
	return time.Duration(float64(window) * chance)
}
