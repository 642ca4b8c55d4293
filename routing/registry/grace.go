package registry

import "time"

// HeartbeatSlack is how much longer than its ttl the leader waits for a renewal: a renewal travels with the next
// heartbeat, and if that is lost, with the one after it.
const HeartbeatSlack = 3 * time.Second

// Grace measures silence for a leader that judges leases and imports by the reports that it receives. It discounts the
// time in which the leader itself did not run, for example because its host was suspended: no report could be received
// then. The zero value is ready.
type Grace struct{ last time.Time }

// Check starts a check at a point in time, and returns for how long the leader did not run before it.
func (g *Grace) Check(now time.Time) (away time.Duration) {
	if gap := now.Sub(g.last); !g.last.IsZero() && gap > HeartbeatSlack {
		away = gap
	}
	g.last = now
	return away
}

// LastReport returns since when there has been no report of name, given the times known from the previous check. A name
// that is new, or whose time is in the future because the clock was set back, counts as reported now.
func LastReport(known map[string]time.Time, name string, away time.Duration, now time.Time) time.Time {
	at, ok := known[name]
	if at = at.Add(away); !ok || at.After(now) {
		return now
	}
	return at
}
