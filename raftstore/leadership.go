package raftstore

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// leadership is what this member knows of who leads. Its own lead begins when an entry of the new term is applied, because
// only then its state holds everything that was acknowledged before.
type leadership struct {
	mu      sync.Mutex
	lead    *lead         // nil: this member does not lead
	changed chan struct{} // closed and replaced when anything here changes
	// leaderless is since when no leader is known; zero: one is.
	leaderless time.Time
}

// lead is one time that this member leads.
type lead struct {
	term   uint64
	ctx    context.Context
	cancel context.CancelFunc
}

func newLeadership() *leadership {
	return &leadership{changed: make(chan struct{}), leaderless: time.Now()}
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
		l.lead = &lead{term: term}
		l.lead.ctx, l.lead.cancel = context.WithCancel(parent)
	})
}

func (l *leadership) end() {
	l.update(func() {
		if l.lead != nil {
			l.lead.cancel()
			l.lead = nil
		}
	})
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

// current returns this member's lead, or nil, and a channel that is closed when that changes.
func (l *leadership) current() (*lead, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lead, l.changed
}

// leaderlessFor returns for how long no leader has been known.
func (l *leadership) leaderlessFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaderless.IsZero() {
		return 0
	}
	return time.Since(l.leaderless)
}

// followLeadership keeps leadership true, until the store is closed.
func (s *Store) followLeadership(leading <-chan bool) {
	// One unread observation is enough: the leader is asked for when it is read.
	observations := make(chan raft.Observation, 1)
	observer := raft.NewObserver(observations, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	s.raft.RegisterObserver(observer)
	defer s.raft.DeregisterObserver(observer)
	defer s.leadership.end()
	for {
		_, known := s.Leader()
		s.leadership.leaderKnown(known)
		select {
		case <-s.ctx.Done():
			return
		case <-observations:
		case gained := <-leading:
			s.leadership.end()
			if gained {
				s.open()
			}
		}
	}
}

// open writes the first entry of this member's term, and begins its lead.
func (s *Store) open() {
	term := s.raft.CurrentTerm()
	entry, err := proto.Marshal(&statev1.Entry{Version: 1, ClusterId: rand.Text()})
	if err != nil {
		s.log.Error("encode the first entry of a term", "error", err)
		return
	}
	if err := s.await(s.raft.Apply(entry, 0)); err != nil {
		s.log.Info("elected, but the lead was lost at once", "term", term, "reason", err)
		return
	}
	if s.raft.CurrentTerm() != term || s.fsm.state().term != term {
		return // another election came in between, of which there will be word
	}
	s.log.Info("this member leads", "term", term)
	s.leadership.begin(s.ctx, term)
}

// IsLeader reports whether this member leads and has applied everything that was acknowledged before.
func (s *Store) IsLeader() bool {
	lead, _ := s.leadership.current()
	return lead != nil && s.raft.State() == raft.Leader
}

// Leader returns the member that leads, as far as this one knows.
func (s *Store) Leader() (Server, bool) {
	address, id := s.raft.LeaderWithID()
	if id == "" {
		return Server{}, false
	}
	memberID, identity, err := parseServerID(id)
	if err != nil {
		s.log.Error("the leader is a server that is none of ours", "error", err)
		return Server{}, false
	}
	return Server{MemberID: memberID, Identity: identity, Address: string(address), Voter: true, Leader: true}, true
}

// Term returns the present Raft term of this member.
func (s *Store) Term() uint64 { return s.raft.CurrentTerm() }

// WhileLeading runs fn each time this member comes to lead, with a context that ends when the lead is lost, and waits for fn
// before it runs it again. It returns when ctx ends, with its error, or when the store is closed.
func (s *Store) WhileLeading(ctx context.Context, fn func(ctx context.Context)) error {
	var last *lead
	for {
		lead, changed := s.leadership.current()
		if lead == nil || lead == last {
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			case <-s.closed:
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
