package raftstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/ententehq/entente/raftstore/internal/machine"
)

// leadership is what this member knows about the leader. Its own leadership begins when an entry of the new term is
// applied, because only then its state holds everything that was acknowledged before.
type leadership struct {
	node    *node
	machine *machine.Machine
	log     hclog.Logger
	// leaderWait is how long calls wait for a leader.
	leaderWait time.Duration

	mu      sync.Mutex
	term    *leaderTerm   // nil: this member does not lead
	changed chan struct{} // closed and replaced on every change
	// leaderless is since when no leader is known; zero: one is.
	leaderless time.Time
	// stopped means that this member takes no more part: Raft, which may hang, is not asked who leads.
	stopped bool
}

// leaderTerm is one term of leadership of this member.
type leaderTerm struct {
	term   uint64
	ctx    context.Context
	cancel context.CancelFunc
}

func newLeadership(n *node, m *machine.Machine, c Config) *leadership {
	return &leadership{
		node: n, machine: m, log: c.Logger, leaderWait: c.Timing.LeaderWait,
		changed: make(chan struct{}), leaderless: time.Now(),
	}
}

func (l *leadership) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *leadership) begin(parent context.Context, term uint64) {
	l.update(func() {
		if l.stopped {
			return
		}
		l.term = &leaderTerm{term: term}
		l.term.ctx, l.term.cancel = context.WithCancel(parent)
	})
}

func (l *leadership) end() {
	l.update(func() {
		if l.term != nil {
			l.term.cancel()
			l.term = nil
		}
	})
}

// stop ends this member's leadership, and its knowledge of any leader, for good.
func (l *leadership) stop() {
	l.end()
	l.update(func() { l.stopped = true })
}

func (l *leadership) leaderKnown(known bool) {
	l.update(func() {
		switch {
		case known:
			l.leaderless = time.Time{}
		case l.leaderless.IsZero():
			l.leaderless = time.Now()
		}
	})
}

// leaderlessFor returns for how long no leader is known; 0: one is.
func (l *leadership) leaderlessFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaderless.IsZero() {
		return 0
	}
	return time.Since(l.leaderless)
}

// current returns this member's lead, or nil, and a channel that is closed when that changes.
func (l *leadership) current() (*leaderTerm, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term, l.changed
}

// leads reports whether this member leads and has applied everything that was acknowledged before.
func (l *leadership) leads() bool {
	lead, _ := l.current()
	return lead != nil && l.node.raft.State() == raft.Leader
}

// leader returns the member that leads, as far as this one knows.
func (l *leadership) leader() (Server, bool) {
	l.mu.Lock()
	stopped := l.stopped
	l.mu.Unlock()
	address, id := l.node.raft.LeaderWithID()
	if id == "" || stopped {
		return Server{}, false
	}
	memberID, identity, err := parseServerID(id)
	if err != nil {
		l.log.Error("the leader has a server ID that this version cannot parse", "error", err)
		return Server{}, false
	}
	return Server{MemberID: memberID, Identity: identity, Address: string(address), Voter: true, Leader: true}, true
}

// run follows the changes of leader until ctx ends. leading is Raft's own channel.
func (l *leadership) run(ctx context.Context, leading <-chan bool) {
	// One unread observation is enough: the leader is read after it.
	observations := make(chan raft.Observation, 1)
	observer := raft.NewObserver(observations, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	l.node.raft.RegisterObserver(observer)
	defer l.node.raft.DeregisterObserver(observer)
	defer l.end()
	for {
		_, known := l.leader()
		l.leaderKnown(known)
		select {
		case <-ctx.Done():
			return
		case <-observations:
		case gained := <-leading:
			l.end()
			if gained {
				l.open(ctx)
			}
		}
	}
}

// open commits the first entry of this member's term, and begins its leadership.
func (l *leadership) open(ctx context.Context) {
	term := l.node.raft.CurrentTerm()
	if err := l.node.applyFirst(rand.Text()); err != nil {
		l.log.Info("elected, and leadership was lost at once", "term", term, "reason", err)
		return
	}
	if l.node.raft.CurrentTerm() != term || l.machine.State().Term != term {
		return // there was another election, which the channel announces
	}
	l.log.Info("this member leads", "term", term)
	l.begin(ctx, term)
}

// whileLeading runs fn during each lead of this member, until ctx or the store ends.
func (l *leadership) whileLeading(ctx context.Context, life *lifetime, fn func(ctx context.Context)) error {
	var last *leaderTerm
	for {
		lead, changed := l.current()
		if lead == nil || lead == last {
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			case <-life.done():
				return ErrClosed
			}
			continue
		}
		last = lead
		leading, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(lead.ctx, cancel)
		fn(leading)
		stop()
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// whileLeads calls cancel when another member than leader leads, or none, as far as this one knows. It returns then, or
// when ctx ends.
func (l *leadership) whileLeads(ctx context.Context, leader Server, cancel func()) {
	for {
		_, changed := l.current()
		if now, ok := l.leader(); !ok || now.MemberID != leader.MemberID {
			cancel()
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

var errNoneKnown = errors.New("no leader is known")

// retryable returns nil if a call should try again, or [ErrNoLeader] if it has waited long enough. It began at a time,
// and its last attempt failed with cause.
func (l *leadership) retryable(began time.Time, cause error) error {
	if time.Since(began) < l.leaderWait && l.leaderlessFor() < l.leaderWait {
		return nil
	}
	return fmt.Errorf("%w (%w)", ErrNoLeader, cause)
}

// pause waits until the leadership changes, at most for a while.
func (l *leadership) pause(ctx context.Context, atMost time.Duration) error {
	_, changed := l.current()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
