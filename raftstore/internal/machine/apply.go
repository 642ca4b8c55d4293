package machine

import (
	"maps"

	"github.com/hashicorp/go-memdb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// builder builds the next state from log entries. It is deterministic: its only inputs are the state before and the
// entries. Nothing of it is visible before publish.
type builder struct {
	contents
	next   State
	cloned map[string]bool // the sessions that next has copies of
	// changes are those of the present entry, each row once, as it was left; batches those of the entries before.
	changes map[row.ID]*Row
	order   []row.ID
	batches []row.Batch
	// replaced means that a restore replaced all that was before: watches restart.
	replaced bool
}

func (s *State) build(db *memdb.MemDB) *builder {
	b := &builder{contents: contents{db.Txn(true)}, next: *s, cloned: map[string]bool{}}
	b.next.floors = maps.Clone(s.floors)
	b.next.sessions = maps.Clone(s.sessions)
	return b
}

// entry applies all commands of one log entry.
func (b *builder) entry(index, term uint64, e *statev1.Entry) []Outcome {
	b.next.Revision, b.next.Term = index, term
	if b.next.ClusterID == "" {
		b.next.ClusterID = e.GetClusterId()
	}
	b.changes, b.order = map[row.ID]*Row{}, nil
	outcomes := make([]Outcome, len(e.GetCommands()))
	for i, c := range e.GetCommands() {
		outcomes[i] = b.command(c)
	}
	if len(b.order) > 0 {
		batch := row.Batch{Revision: row.Revision(index), Changes: make([]row.Change, 0, len(b.order))}
		for _, id := range b.order {
			batch.Changes = append(batch.Changes, row.Change{Table: id.Table, Key: id.Key, Value: b.changes[id].Value})
		}
		b.batches = append(b.batches, batch)
	}
	return outcomes
}

// command applies one command, unless it was applied before.
func (b *builder) command(c *statev1.Command) Outcome {
	id := c.GetId()
	known, recall := lookUp(b.next.sessions, id)
	switch recall {
	case Recalled:
		return known
	case Forgotten:
		return Outcome{}
	}
	o := Outcome{Revision: b.next.Revision}
	switch k := c.GetKind().(type) {
	case *statev1.Command_Transaction:
		o.Applied = b.transact(k.Transaction)
	case *statev1.Command_RestoreChunk:
		o.Applied = b.stage(k.RestoreChunk)
	case *statev1.Command_RestoreSwap:
		o.Applied = b.swap(k.RestoreSwap)
	case *statev1.Command_RestoreAbort:
		o.Applied = b.abort(k.RestoreAbort)
	}
	s := b.session(id)
	s.revision = b.next.Revision
	s.settle(c.GetSettled())
	s.remember(id.GetCounter(), o)
	return o
}

// transact makes the changes of a transaction if its preconditions hold.
func (b *builder) transact(t *statev1.Transaction) bool {
	if b.failed(b.next.floors, t) != nil {
		return false
	}
	for _, change := range t.GetChanges() {
		if change.Value == nil {
			b.delete(change.GetTable(), change.GetKey())
			continue
		}
		b.put(&Row{Table: change.GetTable(), Key: change.GetKey(), Value: change.Value, Revision: b.next.Revision})
	}
	return true
}

// put writes a row, whose revision is set, and removes its tombstone if it has one.
func (b *builder) put(r *Row) {
	b.insert(rowsTable, r)
	raw, err := b.txn.First(tombstonesTable, byID, r.Table, r.Key)
	must(err)
	if raw != nil {
		b.drop(tombstonesTable, raw.(*Row))
		b.next.tombstones--
	}
	b.changed(r)
}

// delete removes a row, if it exists, and leaves a tombstone.
func (b *builder) delete(table, key string) {
	old, ok := b.get(table, key)
	if !ok {
		return
	}
	b.drop(rowsTable, old)
	tombstone := &Row{Table: table, Key: key, Revision: b.next.Revision}
	b.insert(tombstonesTable, tombstone)
	b.next.tombstones++
	b.forgetTombstones()
	b.changed(tombstone)
}

// forgetTombstones removes the oldest tombstones above the limit, and raises the floors of their tables.
func (b *builder) forgetTombstones() {
	for b.next.tombstones > maxTombstones {
		raw, err := b.txn.First(tombstonesTable, byRevision)
		must(err)
		oldest := raw.(*Row)
		b.drop(tombstonesTable, oldest)
		b.next.floors[oldest.Table] = max(b.next.floors[oldest.Table], oldest.Revision)
		b.next.tombstones--
	}
}

// insert puts a row into a table of the in-memory database, in place of the one of that key. All changes of these
// tables go through insert, drop and clear, which keep the digests.
func (b *builder) insert(memtable string, r *Row) {
	raw, err := b.txn.First(memtable, byID, r.Table, r.Key)
	must(err)
	if raw != nil {
		b.next.sums.of(memtable).remove(raw.(*Row))
	}
	must(b.txn.Insert(memtable, r))
	b.next.sums.of(memtable).add(r)
}

func (b *builder) drop(memtable string, r *Row) {
	must(b.txn.Delete(memtable, r))
	b.next.sums.of(memtable).remove(r)
}

func (b *builder) changed(r *Row) {
	id := row.ID{Table: r.Table, Key: r.Key}
	if _, ok := b.changes[id]; !ok {
		b.order = append(b.order, id)
	}
	b.changes[id] = r
}

// session returns the session of a command's member, to be changed. A new incarnation replaces the one before.
func (b *builder) session(id *statev1.CommandID) *session {
	member := id.GetMember()
	s, ok := b.next.sessions[member]
	switch {
	case !ok && len(b.next.sessions) >= maxSessions:
		delete(b.next.sessions, oldestSession(b.next.sessions))
		fallthrough
	case !ok || s.incarnation < id.GetIncarnation():
		s = &session{incarnation: id.GetIncarnation(), outcomes: map[uint64]Outcome{}}
	case b.cloned[member]:
		return s
	default:
		s = s.clone()
	}
	b.next.sessions[member] = s
	b.cloned[member] = true
	return s
}

// publish ends the building and returns the state, and the changes that led to it, oldest first.
func (b *builder) publish(db *memdb.MemDB) (*State, []row.Batch) {
	b.txn.Commit()
	next := b.next
	next.txn = db.Txn(false)
	return &next, b.batches
}
