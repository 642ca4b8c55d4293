// Package election decides how long a member waits for a leader before it starts an election.
//
// Raft waits for one to three times a fixed timeout, which has to suit the worst day of the slowest machine. Here every
// member measures the gaps between the messages of its leader. It starts an election once the leader has been silent
// for a few of the longest gaps, never before the leader's lease has ended. On an idle machine that is soon; on one
// that is overloaded the gaps grow, and the timeout grows with them, so that load causes no election. The members wait
// for different times, by their place in the configuration, so that they do not split the votes.
//
// rule.go has the rules, which are pure. Raft itself decides by its own clock whether the leader is silent, and who is
// elected: this package only sets its timeouts.
package election

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Raft is what the timeouts are set on.
type Raft interface {
	State() raft.RaftState
	ReloadableConfig() raft.ReloadableConfig
	ReloadConfig(raft.ReloadableConfig) error
}

// Timer sets the timeouts of one member.
type Timer struct {
	// wake makes the loop decide again.
	wake chan struct{}
	// reloading is held while the configuration of Raft is changed.
	reloading sync.Mutex

	mu     sync.Mutex
	bounds Bounds
	gaps   gaps
	// silent means that the loop waits for the leader to be heard again.
	silent bool
	// rank is the place of this member, by the last decision.
	rank int
}

// NewTimer returns a timer that has measured nothing yet.
func NewTimer(b Bounds) *Timer { return &Timer{bounds: b, wake: make(chan struct{}, 1)} }

// Received is called with the term of each message of a leader.
func (t *Timer) Received(term uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gaps.received(term, time.Now(), t.bounds.Heartbeat/gapFactor) && t.silent {
		t.silent = false
		t.again()
	}
}

// SetBounds replaces the configured times.
func (t *Timer) SetBounds(b Bounds) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bounds, t.gaps = b, gaps{term: t.gaps.term, last: time.Now(), turned: time.Now()}
	t.again()
}

// Timeout returns for how long this member waits at present for a message of a leader.
func (t *Timer) Timeout() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return silence(t.bounds, t.gaps.gap(), t.rank)
}

func (t *Timer) again() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Run sets the timeouts until ctx ends. rank returns the place of this member among those with a vote.
func (t *Timer) Run(ctx context.Context, r Raft, rank func() int) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-t.wake:
		}
		set, again := t.decide(r.State() == raft.Leader, rank())
		if err := t.Reload(r, func(c *raft.ReloadableConfig) {
			c.HeartbeatTimeout, c.ElectionTimeout = set.Heartbeat, set.Election
		}); err != nil {
			return err
		}
		timer.Reset(again)
	}
}

// Reload changes the configuration of Raft, which only one may do at a time.
func (t *Timer) Reload(r Raft, change func(*raft.ReloadableConfig)) error {
	t.reloading.Lock()
	defer t.reloading.Unlock()
	was := r.ReloadableConfig()
	next := was
	if change(&next); next == was {
		return nil
	}
	return r.ReloadConfig(next)
}

func (t *Timer) decide(leads bool, rank int) (Timeouts, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.rank = rank
	if leads {
		t.gaps.last = now // the silence of its successor begins at the end of its own lead
	}
	set, again := decide(t.bounds, situation{
		leads: leads, heard: !t.gaps.last.IsZero(), silent: now.Sub(t.gaps.last), gap: t.gaps.gap(), rank: rank,
	})
	t.silent = leads || now.Sub(t.gaps.last) >= timeout(t.bounds, t.gaps.gap())
	return set, again
}
