package fetch

import (
	"maps"
	"net/url"
	"time"

	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
)

// retryPace is the interval between retries at one host, however many relationships it serves: a host that is back
// after an outage is not overrun by them.
const retryPace = time.Second

// count counts an attempt that an outage of the peer failed. Any other result ends the row.
func (own *ownership) count(o intake.Outcome) {
	if o.Err == nil || !relationship.IsOutage(o.Result) {
		own.failures = 0
		return
	}
	own.failures++
}

// retry returns when a relationship is fetched after an outage of its peer: before its next turn, as far as the other
// retries at the same host allow it.
func (s *Scheduler) retry(own *ownership, f finish) time.Time {
	turn := f.started.Add(relationship.Turn(own.interval, chance()))
	e, ok := s.poller.config.Mirror.Get(f.name)
	if !ok {
		return turn
	}
	now, least := s.poller.now(), s.poller.config.Intake.MinRefresh()
	at := now.Add(relationship.Retry(own.failures, own.interval, least, chance()))
	return s.retries.after(now, hostOf(e.Rel), at, turn)
}

func hostOf(r *relationship.Relationship) string {
	u, err := url.Parse(r.Endpoint.URL())
	if err != nil {
		return ""
	}
	return u.Host
}

// hostPacer spreads the retries at each host.
type hostPacer struct {
	free map[string]time.Time // the earliest time of the next retry at a host
	kept int                  // the number of times after those that have passed were last removed
}

// after returns the time of a retry that is wanted at a time: that time, or the first that is free at the host. A retry
// that would be no earlier than the relationship's turn is not one: the turn is returned.
func (p *hostPacer) after(now time.Time, host string, at, turn time.Time) time.Time {
	if len(p.free) > 2*p.kept+16 {
		maps.DeleteFunc(p.free, func(_ string, free time.Time) bool { return free.Before(now) })
		p.kept = len(p.free)
	}
	if free, ok := p.free[host]; ok && at.Before(free) {
		at = free
	}
	if !at.Before(turn) {
		return turn
	}
	p.free[host] = at.Add(retryPace)
	return at
}
