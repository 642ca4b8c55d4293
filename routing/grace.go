package routing

import "time"

// grace is how a leader judges what goes on only as long as somebody says so: leases, and the streams that confirm imports. A
// leader that could not look for a while (its host slept, say) could not hear either, and holds that time against nobody.
type grace struct{ looked time.Time }

// look returns for how long the leader was away before it looks now.
func (g *grace) look(now time.Time) (away time.Duration) {
	if gap := now.Sub(g.looked); !g.looked.IsZero() && gap > leaseSlack {
		away = gap
	}
	g.looked = now
	return away
}

// since returns since when nothing was heard of name, by what is known at this look: what is met for the first time, or, since the
// clock was set back, is known of a later time than now, counts as heard of now.
func since(known map[string]time.Time, name string, away time.Duration, now time.Time) time.Time {
	at, met := known[name]
	if at = at.Add(away); !met || at.After(now) {
		return now
	}
	return at
}
