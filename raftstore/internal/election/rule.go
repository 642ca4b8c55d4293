package election

import (
	"cmp"
	"time"
)

const (
	// gapFactor is how many of the longest gaps between a leader's messages a member waits for: one lost message, and a
	// delay of the next, are no reason for an election.
	gapFactor = 3
	// maxFactor bounds how far the timeout grows above the configured one on a machine that is overloaded.
	maxFactor = 4
	// staggerParts is which part of the timeout lies between the members, so that they do not all stand at once and
	// split the votes.
	staggerParts = 10
)

// Bounds are the configured times.
type Bounds struct {
	// Lease is how long a leader leads without answers of a majority. No member elects another before.
	Lease time.Duration
	// Heartbeat and Election are Raft's own timeouts where nothing is measured.
	Heartbeat, Election time.Duration
}

// Timeouts are those that Raft is given.
type Timeouts struct{ Heartbeat, Election time.Duration }

// timeout returns for how long a member without messages of a leader waits, by the longest gap between those that it
// received.
func timeout(b Bounds, gap time.Duration) time.Duration {
	return max(b.Lease, min(gapFactor*gap, maxFactor*b.Heartbeat))
}

// silence returns after which silence of the leader a member starts an election: the members wait for different times.
func silence(b Bounds, gap time.Duration, rank int) time.Duration {
	wait := timeout(b, gap)
	return wait + time.Duration(rank+1)*max(wait/staggerParts, time.Millisecond)
}

// situation is what a member knows when it decides.
type situation struct {
	leads bool
	// heard means that a leader has sent something since the start, and silent for how long none has.
	heard  bool
	silent time.Duration
	// gap is the longest one between the messages of the leader, of late.
	gap time.Duration
	// rank is the place of this member among those with a vote.
	rank int
}

// decide returns what Raft is to work with now, and after which time to decide again. While the leader sends, Raft's
// own timer is far away. A timeout that is lowered makes Raft compare the silence with it at once, and start an
// election: Raft's timer alone takes up to three times as long.
func decide(b Bounds, s situation) (_ Timeouts, again time.Duration) {
	wait, due := timeout(b, s.gap), silence(b, s.gap, s.rank)
	switch {
	case s.leads || !s.heard:
		return Timeouts{b.Heartbeat, b.Election}, wait
	case s.silent < due:
		return Timeouts{max(b.Heartbeat, 2*wait), max(b.Election, 2*wait)}, due - s.silent
	}
	return Timeouts{wait, wait}, wait / 4
}

// gapSpan is how long a gap counts, at least; twice as long at most.
const gapSpan = 5 * time.Second

// gaps is the longest gap between the messages of leaders, of late. What was measured with one leader counts for the
// next: an overloaded machine stays that for a while, and an idle one is no reason to wait longer.
type gaps struct {
	term              uint64
	last, turned      time.Time
	longest, previous time.Duration
}

// received adds a message. assumed is the gap that a member assumes that has measured none, until it has measured for
// long enough. It reports whether the message counts; one of an earlier leader does not.
func (g *gaps) received(term uint64, now time.Time, assumed time.Duration) bool {
	switch {
	case term < g.term:
		return false
	case term > g.term || g.gap() == 0: // the time between two leaders is no gap
		*g = gaps{term: term, turned: now, previous: cmp.Or(g.gap(), assumed)}
	default:
		g.longest = max(g.longest, now.Sub(g.last))
	}
	g.last = now
	if now.Sub(g.turned) >= gapSpan {
		g.longest, g.previous, g.turned = 0, g.longest, now
	}
	return true
}

// gap returns the longest gap; 0: none was measured.
func (g *gaps) gap() time.Duration { return max(g.longest, g.previous) }
