// Package machine is the replicated state machine: the state of all tables, and how the entries of the Raft log change
// it.
//
// A [State] is immutable. [Machine] implements raft.FSM: it builds the next state from entries, publishes it, and hands
// the changes to the watches. What it applies it never guesses: the outcome of every command is remembered under the
// command's ID (session.go), and a command that arrives again has the same outcome. An entry that it cannot decode
// stops the member, with the state as it was before.
//
// A restarted machine publishes nothing before it has reached the revision that it had published before (resume.go),
// and records every later one before it publishes it.
//
// Start reading at apply.go. staging.go applies a restore, and records.go turns a state into a snapshot and back.
package machine

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/history"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// CommandVersion is the newest version of commands that this build writes and applies.
const CommandVersion = 4

// The versions of commands. A version is also what gates rows that members of older versions would misread.
const (
	// SealedVersion is the first version in which every command has a checksum.
	SealedVersion = 2
	// OwnersVersion is the first version whose members know that services have owners.
	OwnersVersion = 3
	// SuccessorsVersion is the first version whose members know the rows of roots that are published ahead.
	SuccessorsVersion = 4
)

// FirstCommandVersion is what a leader writes until every member has announced a newer one.
const FirstCommandVersion = 1

// MaxCommand is the largest command, and about the largest log entry: larger ones would delay Raft's heartbeats.
const MaxCommand = 512 << 10

// Machine is the state machine that Raft drives. It is safe for concurrent use.
type Machine struct {
	// History holds the latest changes, for watches.
	History *history.History
	// Progress is the revision that is published.
	Progress Progress

	published   atomic.Pointer[State]
	checkpoints atomic.Pointer[[]Checkpoint]
	resumed     *resumption
	applied     func()
	// checkpointEvery is the number of Raft indexes between two checkpoints.
	checkpointEvery uint64
	stop            func(error)

	mu sync.Mutex // Raft and the loading of a restarted member apply entries
	db *memdb.MemDB
	// latest is the state after the last entry; it is the published one, unless the machine is resuming.
	latest *State
	// fromRaft is the index of the last entry or snapshot that Raft has handed over.
	fromRaft uint64
	stopped  error
}

// New returns a machine in the state before the first entry. stop is called once, if the member must stop. applied is
// called after entries have been applied.
func New(stop func(error), applied func()) *Machine {
	db, empty := newState()
	m := &Machine{db: db, latest: empty, History: history.New(), stop: stop, applied: applied,
		checkpointEvery: CheckpointEvery}
	m.resumed = newResumption(Resume{})
	m.published.Store(empty)
	return m
}

// State returns the present state. It never goes back.
func (m *Machine) State() *State { return m.published.Load() }

// Apply implements raft.FSM. Raft calls ApplyBatch instead.
func (m *Machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. It applies entries and publishes the state after the last of them. The
// response to an entry is the []Outcome of its commands, in order, or the error with which this member stopped.
func (m *Machine) ApplyBatch(logs []*raft.Log) []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fromRaft = logs[len(logs)-1].Index
	return m.applyBatch(logs)
}

func (m *Machine) applyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	b := m.latest.build(m.db)
	for i, l := range logs {
		if l.Index <= m.latest.Revision {
			// It was applied by Load. Nobody waits for it: this member proposed nothing before.
			responses[i] = errAppliedBefore
			continue
		}
		if m.stopped == nil {
			m.checkpoint(&b.next, l.Index)
		}
		outcomes, err := m.apply(b, l)
		if err != nil {
			m.halt(err)
			responses[i] = err
			continue
		}
		responses[i] = outcomes
	}
	next, batches := b.publish(m.db)
	m.publish(next, batches, b.replaced)
	m.applied()
	return responses
}

func (m *Machine) apply(b *builder, l *raft.Log) ([]Outcome, error) {
	if m.stopped != nil {
		return nil, m.stopped
	}
	if l.Type != raft.LogCommand {
		return b.entry(l.Index, l.Term, &statev1.Entry{}), nil // a change of the members
	}
	e, err := decodeEntry(l.Data)
	if err != nil {
		return nil, fmt.Errorf("member stopped: log entry %d %w", l.Index, err)
	}
	return b.entry(l.Index, l.Term, e), nil
}

// decodeEntry decodes a log entry of a version that this build applies.
func decodeEntry(data []byte) (*statev1.Entry, error) {
	e := &statev1.Entry{}
	if err := proto.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("does not decode, which means that the log is damaged: %w", err)
	}
	if e.GetVersion() == 0 || e.GetVersion() > CommandVersion {
		return nil, fmt.Errorf("has command version %d, and this build applies 1 to %d: "+
			"run the version that the other members run", e.GetVersion(), CommandVersion)
	}
	if err := checkSeals(data, e.GetVersion()); err != nil {
		return nil, fmt.Errorf("has %w", err)
	}
	return e, nil
}

// halt keeps the state as it was before the entry that could not be applied, and stops the member.
func (m *Machine) halt(err error) {
	if m.stopped == nil {
		m.stopped = err
		m.stop(err)
	}
}

// publish makes a state that is newer than the published one visible, after its revision was recorded.
func (m *Machine) publish(next *State, batches []row.Batch, replaced bool) {
	m.latest = next
	if m.resumed.holds(next.Revision) || next.Revision == m.State().Revision {
		return
	}
	if err := m.resumed.record(next.Revision, batches, replaced); err != nil {
		m.halt(fmt.Errorf("member stopped: %w", err))
		return
	}
	m.published.Store(next)
	if m.resumed.begin() || replaced {
		m.History.Reset(row.Revision(next.Revision))
	} else {
		m.History.Append(batches)
	}
	m.Progress.reach(next.Revision)
}

// Snapshot implements raft.FSM.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped != nil {
		return nil, m.stopped
	}
	if m.fromRaft < m.latest.Revision {
		return nil, fmt.Errorf("no snapshot yet: the state is at revision %d, and Raft has confirmed %d of it",
			m.latest.Revision, m.fromRaft)
	}
	return &persistedState{state: m.latest}, nil
}

// Restore implements raft.FSM. It takes over a whole state, at the start or from a leader. A state older than the
// present one changes nothing.
func (m *Machine) Restore(from io.ReadCloser) error {
	db, s, err := readState(from)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fromRaft = s.Revision
	if s.Revision <= m.latest.Revision {
		return nil
	}
	m.db = db
	m.checkpoints.Store(nil)
	m.publish(s, nil, true)
	return nil
}

// persistedState is a state that is being written into a snapshot of the Raft log.
type persistedState struct{ state *State }

// Persist implements raft.FSMSnapshot.
func (p *persistedState) Persist(sink raft.SnapshotSink) error {
	if err := p.state.write(sink); err != nil {
		err = fmt.Errorf("write a snapshot at revision %d: %w", p.state.Revision, err)
		if cancelled := sink.Cancel(); cancelled != nil {
			return fmt.Errorf("%w (and cancel it: %w)", err, cancelled)
		}
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (p *persistedState) Release() {}
