package raftstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// ReadOptions define how new the state must be that a read sees.
type ReadOptions struct {
	// Linearizable: at least as new as every write that was acknowledged, by any member, before the call.
	Linearizable bool
	// MinRevision: at least as new as this revision, which the reader has seen elsewhere.
	MinRevision Revision
}

// NextGeneration returns the generation of a row after a change of what clients set. last is the one before, or 0. The
// result is higher than every earlier one of the row, also of a deleted row with the same key.
func NextGeneration(r Reader, last uint64) uint64 { return max(last, uint64(r.Revision())) + 1 }

// reads makes reads linearizable: it obtains an index that holds every acknowledged write, and waits until this member
// has applied it.
type reads struct {
	*leadership
	life    *lifetime
	machine *machine.Machine
	peers   peers
	// requested shares the read indexes that this member obtains from the leader, and verified those that it grants as
	// the leader.
	requested, verified rounds
	// verifyLeader starts a verification by Raft.
	verifyLeader func() raft.Future
}

// reach returns once this member has applied a revision. It returns [ErrBehind] if that takes too long: its disk may be
// full, while the others go on.
func (r *reads) reach(ctx context.Context, revision uint64) error {
	open, release := r.life.until(ctx)
	defer release()
	waiting, cancel := context.WithTimeout(open, r.leaderWait)
	defer cancel()
	err := r.machine.Progress.Wait(waiting, revision)
	if errors.Is(err, context.DeadlineExceeded) && open.Err() == nil {
		return fmt.Errorf(
			"revision %d, while this member is at %d: %w",
			revision,
			r.machine.State().Revision,
			ErrBehind,
		)
	}
	return r.life.orClosed(err)
}

// index returns an index that holds every write acknowledged before the call.
func (r *reads) index(ctx context.Context) (uint64, error) {
	ctx, cancel := r.life.until(ctx)
	defer cancel()
	index, err := r.requested.share(ctx, r.life, func() (uint64, error) { return r.request(r.life.ctx) })
	return index, r.life.orClosed(err)
}

// request obtains an index from the leader, in as many attempts as it takes.
func (r *reads) request(ctx context.Context) (uint64, error) {
	began, pause := time.Now(), firstPause
	for {
		index, err := r.requestOnce(ctx)
		if err == nil {
			return index, nil
		}
		if refused(err) {
			return 0, fmt.Errorf("obtain a read index from the leader: %w", err)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err := r.retryable(began, err); err != nil {
			return 0, err
		}
		if err := r.pause(ctx, pause); err != nil {
			return 0, err
		}
		pause = min(2*pause, lastPause)
	}
}

func (r *reads) requestOnce(ctx context.Context) (uint64, error) {
	leader, ok := r.leader()
	if !ok {
		return 0, errNoneKnown
	}
	ctx, cancel := context.WithTimeout(ctx, r.leaderWait)
	defer cancel()
	if leader.MemberID == r.peers.self {
		return r.grant(ctx)
	}
	client, err := r.peers.client(leader.MemberID)
	if err != nil {
		return 0, err
	}
	response, err := client.ReadIndex(ctx, &ententev1.ReadIndexRequest{})
	if err != nil {
		return 0, fmt.Errorf("member %s: %w", leader.MemberID, err)
	}
	return response.GetIndex(), nil
}

// grant returns an index on the leader.
func (r *reads) grant(ctx context.Context) (uint64, error) {
	return r.verified.share(ctx, r.life, r.verify)
}

// verify reads the commit index, and then proves that this member has led in the same term all the time. Its lead has
// begun, so that an entry of its own term is committed; without one the commit index could be older than acknowledged
// writes.
func (r *reads) verify() (uint64, error) {
	lead, _ := r.current()
	if lead == nil || r.node.raft.CurrentTerm() != lead.term {
		return 0, ErrNotLeader
	}
	index := r.node.raft.CommitIndex()
	if err := r.prove(lead); err != nil {
		if errors.Is(err, raft.ErrRaftShutdown) {
			return 0, ErrClosed
		}
		return 0, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	if r.node.raft.CurrentTerm() != lead.term {
		return 0, ErrNotLeader
	}
	return index, nil
}

// prove proves that this member leads after the call began. Raft's verification makes it send heartbeats at once, and
// ends the lead if one finds a newer term; package quorum has the reason why it proves nothing by itself.
func (r *reads) prove(lead *leaderTerm) error {
	ctx, cancel := context.WithTimeout(lead.ctx, r.leaderWait)
	defer cancel()
	proof := r.node.acks.Begin(lead.term, r.node.id, r.node.raft.GetConfiguration().Configuration().Servers)
	if err := r.node.await(r.verifyLeader()); err != nil {
		return err
	}
	return proof.Await(ctx)
}

// rounds lets concurrent calls share one round. A call never joins a round that began before it.
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

// share returns the result of a round of fn that begins after the call. fn runs in a goroutine of the store.
func (r *rounds) share(ctx context.Context, life *lifetime, fn func() (uint64, error)) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	if !r.running {
		r.running = life.Go(func() { r.run(fn) })
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

// run runs rounds for as long as calls wait for another one.
func (r *rounds) run(fn func() (uint64, error)) {
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
		now.index, now.err = fn()
		close(now.done)
	}
}

// Reader is what a [Table] reads from: a [View], or a [Tx], which records what was read.
type Reader interface {
	// Revision is that of the state that is read.
	Revision() Revision

	row(table, key string) (*machine.Row, bool)
	rows(table, prefix string) iter.Seq[*machine.Row]
	prefixRevision(table, prefix string) Revision
}

// View is the state of the store at one revision. It never changes, costs only the memory that it keeps, and can be
// used from many goroutines.
type View struct {
	state *machine.State
	seen  *tablesSeen // records the tables that are read; nil: nothing does
}

// Revision returns the Raft index of the last entry that the view holds.
func (v *View) Revision() Revision { return Revision(v.state.Revision) }

// ClusterID returns the identity of the cluster, which its first leader generated. It is empty before that.
func (v *View) ClusterID() string { return v.state.ClusterID }

func (v *View) row(table, key string) (*machine.Row, bool) {
	v.seen.record(table)
	return v.state.Get(table, key)
}

func (v *View) rows(table, prefix string) iter.Seq[*machine.Row] {
	v.seen.record(table)
	return v.state.Below(table, prefix)
}

func (v *View) prefixRevision(table, prefix string) Revision {
	v.seen.record(table)
	return v.state.PrefixRevision(table, prefix)
}
