package raftstore

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// CommandVersion is the newest version of commands that this build writes and applies.
const CommandVersion = 1

// firstCommandVersion is what a leader writes until it knows that every member applies newer ones.
const firstCommandVersion = 1

// fsm is what Raft drives: it applies entries to the state and publishes what comes out. Raft calls its methods from one
// goroutine; everything else reads what is published.
type fsm struct {
	db        *memdb.MemDB
	published atomic.Pointer[state]
	history   *history
	progress  progress
	// news is told of what is committed, and of what the log takes in.
	news *news
	// stop is called once, when this member cannot go on; stopped says that it was.
	stop    func(error)
	stopped error
}

func newFSM(stop func(error)) *fsm {
	db, empty := newState()
	f := &fsm{db: db, history: newHistory(), stop: stop, news: newNews()}
	f.published.Store(empty)
	return f
}

func (f *fsm) state() *state { return f.published.Load() }

// Apply is part of raft.FSM. Raft calls ApplyBatch instead.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries and publishes the state after the last of them. The response to an entry are the outcomes of its
// commands, in order, or the error with which this member stopped.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	a := f.state().apply(f.db)
	for i, l := range logs {
		outcomes, err := f.applyLog(a, l)
		if err != nil {
			f.halt(err)
			responses[i] = err
			continue
		}
		responses[i] = outcomes
	}
	next, batches := a.publish(f.db)
	f.publish(next, batches, a.replaced)
	f.news.tell()
	return responses
}

func (f *fsm) applyLog(a *applying, l *raft.Log) ([]outcome, error) {
	if f.stopped != nil {
		return nil, f.stopped
	}
	if l.Type != raft.LogCommand {
		return a.entry(l.Index, l.Term, &statev1.Entry{}), nil // a change of the members
	}
	e, err := decodeEntry(l.Data)
	if err != nil {
		return nil, fatalError("log entry %d: %w", l.Index, err)
	}
	return a.entry(l.Index, l.Term, e), nil
}

// decodeEntry reads a log entry of a version that this build knows.
func decodeEntry(data []byte) (*statev1.Entry, error) {
	e := &statev1.Entry{}
	if err := proto.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("does not decode, which means that the log is damaged: %w", err)
	}
	if e.GetVersion() == 0 || e.GetVersion() > CommandVersion {
		return nil, fmt.Errorf("command version %d, and this build knows 1 to %d: run the version that the other members run", e.GetVersion(), CommandVersion)
	}
	return e, nil
}

// halt keeps the state as it was before the entry that could not be applied, and has the member stop.
func (f *fsm) halt(err error) {
	if f.stopped == nil {
		f.stopped = err
		f.stop(err)
	}
}

func (f *fsm) publish(next *state, batches []Batch, replaced bool) {
	f.published.Store(next)
	if replaced {
		f.history.reset(Revision(next.revision))
	} else {
		f.history.append(batches)
	}
	f.progress.reached(next.revision)
}

// Snapshot is part of raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.stopped != nil {
		return nil, f.stopped
	}
	return &persistedState{state: f.state()}, nil
}

// Restore is part of raft.FSM: it takes over a whole state, at the start or from a leader.
func (f *fsm) Restore(from io.ReadCloser) error {
	db, s, err := readState(from)
	if err != nil {
		return err
	}
	f.db = db
	f.published.Store(s)
	f.history.reset(Revision(s.revision))
	f.progress.reached(s.revision)
	return nil
}

// persistedState is a state on its way into a snapshot of the Raft log.
type persistedState struct{ state *state }

// Persist is part of raft.FSMSnapshot.
func (p *persistedState) Persist(sink raft.SnapshotSink) error {
	if err := writeState(sink, p.state); err != nil {
		return fmt.Errorf("write snapshot at revision %d: %w", p.state.revision, joinCancel(err, sink))
	}
	return sink.Close()
}

func joinCancel(err error, sink raft.SnapshotSink) error {
	if cancelled := sink.Cancel(); cancelled != nil {
		return fmt.Errorf("%w (and cancelling it: %w)", err, cancelled)
	}
	return err
}

// Release is part of raft.FSMSnapshot.
func (p *persistedState) Release() {}

// progress lets goroutines wait for a revision to be applied.
type progress struct {
	mu      sync.Mutex
	at      uint64
	waiting map[*waiter]struct{}
}

type waiter struct {
	revision uint64
	done     chan struct{}
}

func (p *progress) reached(revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = max(p.at, revision)
	for w := range p.waiting {
		if w.revision <= p.at {
			close(w.done)
			delete(p.waiting, w)
		}
	}
}

// wait returns once the revision is applied, or with the error of ctx.
func (p *progress) wait(ctx context.Context, revision uint64) error {
	p.mu.Lock()
	if revision <= p.at {
		p.mu.Unlock()
		return nil
	}
	w := &waiter{revision: revision, done: make(chan struct{})}
	if p.waiting == nil {
		p.waiting = map[*waiter]struct{}{}
	}
	p.waiting[w] = struct{}{}
	p.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.waiting, w)
		p.mu.Unlock()
		return ctx.Err()
	}
}
