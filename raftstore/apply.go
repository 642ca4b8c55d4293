package raftstore

import (
	"maps"

	"github.com/hashicorp/go-memdb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// applying builds the next state out of log entries. It is deterministic: it looks at nothing but the state before and the
// entries. Nobody sees any of it before publish.
type applying struct {
	contents
	next   state
	cloned map[string]bool // the sessions that next has copies of
	// changes are those of the entry at hand, each row once, as it was left; batches those of the entries before.
	changes map[rowID]*entry
	order   []rowID
	batches []Batch
	// replaced says that a restore took the place of all that was before: watches start again.
	replaced bool
}

func (s *state) apply(db *memdb.MemDB) *applying {
	a := &applying{contents: contents{txn: db.Txn(true)}, next: *s, cloned: map[string]bool{}}
	a.next.floors = maps.Clone(s.floors)
	a.next.sessions = maps.Clone(s.sessions)
	return a
}

// entry applies all commands of one log entry.
func (a *applying) entry(index, term uint64, e *statev1.Entry) []outcome {
	a.next.revision, a.next.term = index, term
	if a.next.clusterID == "" {
		a.next.clusterID = e.GetClusterId()
	}
	a.changes, a.order = map[rowID]*entry{}, nil
	outcomes := make([]outcome, len(e.GetCommands()))
	for i, c := range e.GetCommands() {
		outcomes[i] = a.command(c)
	}
	if len(a.order) > 0 {
		b := Batch{Revision: Revision(index), Changes: make([]Change, 0, len(a.order))}
		for _, id := range a.order {
			b.Changes = append(b.Changes, Change{Table: id.table, Key: id.key, Value: a.changes[id].value})
		}
		a.batches = append(a.batches, b)
	}
	return outcomes
}

// command applies one command, unless it was applied before.
func (a *applying) command(c *statev1.Command) outcome {
	id := c.GetId()
	known, how := lookUp(a.next.sessions, id)
	switch how {
	case recalled:
		return known
	case forgotten:
		return outcome{} // revision 0: not to be told
	}
	o := outcome{revision: a.next.revision}
	switch k := c.GetKind().(type) {
	case *statev1.Command_Transaction:
		o.applied = a.transact(k.Transaction)
	case *statev1.Command_RestoreChunk:
		o.applied = a.stage(k.RestoreChunk)
	case *statev1.Command_RestoreSwap:
		o.applied = a.swap(k.RestoreSwap)
	case *statev1.Command_RestoreAbort:
		o.applied = a.abort(k.RestoreAbort)
	}
	s := a.session(id)
	s.revision = a.next.revision
	s.settle(c.GetSettled())
	s.remember(id.GetCounter(), o)
	return o
}

// transact makes the changes of a transaction if its preconditions hold.
func (a *applying) transact(t *statev1.Transaction) bool {
	if failed(a.contents, a.next.floors, t) != nil {
		return false
	}
	for _, change := range t.GetChanges() {
		a.change(change)
	}
	return true
}

// failed returns the first condition that does not hold: what was read and is not so any more.
func failed(in contents, floors map[string]uint64, t *statev1.Transaction) *Prefix {
	for _, c := range t.GetRows() {
		var now uint64
		if e, ok := in.get(c.GetTable(), c.GetKey()); ok {
			now = e.revision
		}
		if now != c.GetRevision() {
			return &Prefix{c.GetTable(), c.GetKey()}
		}
	}
	for _, c := range t.GetPrefixes() {
		if in.changedSince(c.GetTable(), c.GetPrefix(), floors, t.GetBase()) {
			return &Prefix{c.GetTable(), c.GetPrefix()}
		}
	}
	return nil
}

// change writes or deletes a row.
func (a *applying) change(c *statev1.RowChange) {
	if c.Value == nil {
		a.delete(c.GetTable(), c.GetKey())
		return
	}
	a.put(&entry{table: c.GetTable(), key: c.GetKey(), value: c.Value, revision: a.next.revision})
}

// put writes a row, whose revision is set, and ends its tombstone if it has one.
func (a *applying) put(e *entry) {
	must(a.txn.Insert(rowsTable, e))
	raw, err := a.txn.First(tombstonesTable, byID, e.table, e.key)
	must(err)
	if raw != nil {
		must(a.txn.Delete(tombstonesTable, raw))
		a.next.tombstones--
	}
	a.note(e)
}

// delete removes a row, if it is there, and leaves a tombstone.
func (a *applying) delete(table, key string) {
	old, ok := a.get(table, key)
	if !ok {
		return
	}
	must(a.txn.Delete(rowsTable, old))
	grave := &entry{table: table, key: key, revision: a.next.revision}
	must(a.txn.Insert(tombstonesTable, grave))
	a.next.tombstones++
	a.forgetTombstones()
	a.note(grave)
}

// forgetTombstones gives up the oldest deletions once there are too many, and raises the floors of their tables.
func (a *applying) forgetTombstones() {
	for a.next.tombstones > maxTombstones {
		raw, err := a.txn.First(tombstonesTable, byRevision)
		must(err)
		oldest := raw.(*entry)
		must(a.txn.Delete(tombstonesTable, oldest))
		a.next.floors[oldest.table] = max(a.next.floors[oldest.table], oldest.revision)
		a.next.tombstones--
	}
}

func (a *applying) note(e *entry) {
	id := rowID{e.table, e.key}
	if _, ok := a.changes[id]; !ok {
		a.order = append(a.order, id)
	}
	a.changes[id] = e
}

// session returns the session that a command belongs to, to be changed. A new incarnation replaces the one before.
func (a *applying) session(id *statev1.CommandID) *session {
	member := id.GetMember()
	s, ok := a.next.sessions[member]
	switch {
	case !ok && len(a.next.sessions) >= maxSessions:
		delete(a.next.sessions, oldestSession(a.next.sessions))
		fallthrough
	case !ok || s.incarnation < id.GetIncarnation():
		s = &session{incarnation: id.GetIncarnation(), outcomes: map[uint64]outcome{}}
	case a.cloned[member]:
		return s
	default:
		s = s.clone()
	}
	a.next.sessions[member] = s
	a.cloned[member] = true
	return s
}

// publish ends the building and returns the state, and the changes that led to it, oldest first.
func (a *applying) publish(db *memdb.MemDB) (*state, []Batch) {
	a.txn.Commit()
	next := a.next
	next.rows = db.Txn(false)
	return &next, a.batches
}

// must is for errors of the in-memory database, all of which are mistakes in its fixed schema.
func must(err error) {
	if err != nil {
		panic("raftstore: in-memory database: " + err.Error())
	}
}
