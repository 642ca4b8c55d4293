package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// ReadOptions say how new the state must be that a read sees.
type ReadOptions struct {
	// Linearizable: at least as new as every write that was acknowledged, by any member, before the call.
	Linearizable bool
	// MinRevision: at least as new as this revision, which the reader has seen elsewhere.
	MinRevision Revision
}

// Read returns this member's state once it is as new as asked. It waits for that no longer than Timing.LeaderWait, then fails
// with [ErrBehind], or with [ErrNoLeader] when a linearizable read finds no leader.
func (s *Store) Read(ctx context.Context, o ReadOptions) (*View, error) {
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	index := uint64(o.MinRevision)
	if o.Linearizable {
		leaders, err := s.readIndex(ctx)
		if err != nil {
			return nil, err
		}
		index = max(index, leaders)
	}
	if err := s.caughtUp(ctx, index); err != nil {
		return nil, err
	}
	return s.View(), nil
}

// readIndex returns an index that holds every write acknowledged before the call.
func (s *Store) readIndex(ctx context.Context) (uint64, error) {
	ctx, cancel := s.until(ctx)
	defer cancel()
	index, err := s.asked.share(ctx, &s.tasks, func() (uint64, error) { return s.askReadIndex(s.ctx) })
	return index, s.orClosed(err)
}

// askReadIndex asks whoever leads, as often as it takes.
func (s *Store) askReadIndex(ctx context.Context) (uint64, error) {
	began, pause := time.Now(), firstPause
	for {
		index, err := s.askReadIndexOnce(ctx)
		if err == nil {
			return index, nil
		}
		if refused(err) {
			return 0, fmt.Errorf("ask the leader for a read index: %w", err)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err := s.leaderless(began, err); err != nil {
			return 0, err
		}
		if err := s.pause(ctx, pause); err != nil {
			return 0, err
		}
		pause = min(2*pause, lastPause)
	}
}

func (s *Store) askReadIndexOnce(ctx context.Context) (uint64, error) {
	leader, ok := s.Leader()
	if !ok {
		return 0, errNoneKnown
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timing.LeaderWait)
	defer cancel()
	if leader.MemberID == s.config.MemberID {
		return s.ownReadIndex(ctx)
	}
	client, err := s.client(leader.MemberID)
	if err != nil {
		return 0, err
	}
	response, err := client.ReadIndex(ctx, &ententev1.ReadIndexRequest{})
	if err != nil {
		return 0, fmt.Errorf("member %s: %w", leader.MemberID, err)
	}
	return response.GetIndex(), nil
}

// ownReadIndex is readIndex on the leader.
func (s *Store) ownReadIndex(ctx context.Context) (uint64, error) {
	return s.verified.share(ctx, &s.tasks, s.verifyReadIndex)
}

// verifyReadIndex notes the commit index, and then proves that this member led in the same term all along. Its lead has begun,
// so that an entry of its own term is committed, without which the commit index could be older than acknowledged writes.
func (s *Store) verifyReadIndex() (uint64, error) {
	lead, _ := s.leadership.current()
	if lead == nil || s.raft.CurrentTerm() != lead.term {
		return 0, ErrNotLeader
	}
	index := s.raft.CommitIndex()
	if err := s.await(s.raft.VerifyLeader()); err != nil {
		if errors.Is(err, raft.ErrRaftShutdown) {
			return 0, ErrClosed
		}
		return 0, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	if s.raft.CurrentTerm() != lead.term {
		return 0, ErrNotLeader
	}
	return index, nil
}

// rounds has concurrent calls share one round of asking. A call never joins a round that has begun before it.
type rounds struct {
	mu      sync.Mutex
	running bool
	next    *round
}

type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// share returns the result of a round of ask that begins after the call. ask runs in a goroutine of tasks.
func (r *rounds) share(ctx context.Context, tasks *tasks, ask func() (uint64, error)) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	if !r.running {
		r.running = tasks.Go(func() { r.run(ask) })
	}
	running := r.running
	r.mu.Unlock()
	if !running {
		return 0, ErrClosed
	}
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run goes on for as long as there are calls for another round.
func (r *rounds) run(ask func() (uint64, error)) {
	for {
		r.mu.Lock()
		now := r.next
		r.next = nil
		if now == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		now.index, now.err = ask()
		close(now.done)
	}
}
