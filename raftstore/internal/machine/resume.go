package machine

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ententehq/entente/raftstore/internal/row"
)

// Resume describes what a restarted member had published, and how it records what it publishes from then on.
type Resume struct {
	// Revision is that of the newest state that was published. Nothing is published before it is reached.
	Revision uint64
	// Record records that the state up to a revision will be published. If now is set, the record must be on disk when
	// it returns. If Record is nil, nothing is recorded.
	Record func(revision uint64, now bool) error
	// RecordsNow reports whether changes of a table are recorded on disk at once. If nil, none are.
	RecordsNow func(table string) bool
}

// resumption is the part of a machine that compares its state with what was published before a restart.
type resumption struct {
	Resume
	// reached is closed once the machine has published a state.
	reached chan struct{}
	begun   bool
	// at is the revision of the newest state while it is not published.
	at atomic.Uint64
}

func newResumption(r Resume) *resumption {
	n := &resumption{Resume: r, reached: make(chan struct{})}
	if r.Revision == 0 {
		n.begun = true
		close(n.reached)
	}
	return n
}

// errAppliedBefore is the response to an entry that was applied already.
var errAppliedBefore = errors.New("the entry was applied before")

// Resume sets what was published before. It must be called before anything is applied.
func (m *Machine) Resume(r Resume) { m.resumed = newResumption(r) }

// Resumed is closed once the machine publishes its state: it is at least as new as what was published before.
func (m *Machine) Resumed() <-chan struct{} { return m.resumed.reached }

// Resuming returns how far the machine has come to the revision that was published before, and whether it is below.
func (m *Machine) Resuming() (at, of uint64, below bool) {
	select {
	case <-m.resumed.reached:
		return 0, 0, false
	default:
		return m.resumed.at.Load(), m.resumed.Revision, true
	}
}

// loadBatch is how many entries are read from the log before they are applied together.
const loadBatch = 256

// Load applies the entries of a log up to the revision that was published before: they are committed, or they would not
// have been published. Raft may apply entries at the same time. It returns early if proceed returns false.
func (m *Machine) Load(log raft.LogStore, proceed func() bool) error {
	for proceed() {
		at, of, below := m.Resuming()
		if !below {
			return nil
		}
		logs, err := readLog(log, at+1, of)
		if again, err := m.load(at, logs, err); !again || err != nil {
			return err
		}
	}
	return nil
}

// load applies entries that were read, or not, when the state was at a revision. It reports whether there may be more.
func (m *Machine) load(at uint64, logs []*raft.Log, err error) (again bool, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.stopped != nil:
		return false, nil // the member stops with that
	case m.latest.Revision > at:
		return true, nil // Raft has applied the same entries, or a snapshot that replaces them
	case err != nil:
		return false, err
	}
	m.applyBatch(logs)
	return true, nil
}

// readLog reads the next entries that change the state, of those from an index to another one.
func readLog(log raft.LogStore, from, to uint64) ([]*raft.Log, error) {
	var logs []*raft.Log
	for index := from; index <= to && len(logs) < loadBatch; index++ {
		l := &raft.Log{}
		if err := log.GetLog(index, l); err != nil {
			return nil, fmt.Errorf("read entry %d of the log, which this member had applied before: %w", index, err)
		}
		if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
			logs = append(logs, l)
		}
	}
	if len(logs) == 0 {
		return nil, fmt.Errorf("the log has no entry that changes the state from %d to %d, and this member had "+
			"applied one at %d", from, to, to)
	}
	return logs, nil
}

// holds reports whether a state is older than what was published before, so that it must not be published.
func (r *resumption) holds(revision uint64) bool {
	r.at.Store(revision)
	return revision < r.Revision
}

// begin marks that a state is published. It reports whether it is the first one after a restart.
func (r *resumption) begin() (first bool) {
	if r.begun {
		return false
	}
	r.begun = true
	close(r.reached)
	return true
}

// record records a revision before it is published.
func (r *resumption) record(revision uint64, batches []row.Batch, replaced bool) error {
	if r.Record == nil {
		return nil
	}
	now := replaced || r.RecordsNow != nil && slices.ContainsFunc(batches, func(b row.Batch) bool {
		return slices.ContainsFunc(b.Changes, func(c row.Change) bool { return r.RecordsNow(c.Table) })
	})
	return r.Record(revision, now)
}
