package raftstore

import (
	"iter"

	"github.com/hashicorp/go-memdb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// The tables of the in-memory database that a restore fills before it swaps: the snapshot's rows, and what rooms carry over.
const (
	stagedTable  = "staged"
	carriedTable = "carried"
)

func stagingSchema(name string) *memdb.TableSchema {
	return &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		byID: {Name: byID, Unique: true, Indexer: idIndex{}},
	}}
}

// entries goes through one memory table in the order of (table, key).
func (s *state) entries(memtable string) iter.Seq[*entry] { return entries(s.rows, memtable) }

func entries(txn *memdb.Txn, memtable string) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		it, err := txn.Get(memtable, byID)
		must(err)
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if !yield(raw.(*entry)) {
				return
			}
		}
	}
}

func count(of iter.Seq[*entry]) (n uint64) {
	for range of {
		n++
	}
	return n
}

// stage keeps the rows of a chunk for the swap, if it is the chunk that comes next.
func (a *applying) stage(c *statev1.RestoreChunk) bool {
	next, ok := nextStaging(a.next.staging, c)
	if !ok {
		return false
	}
	if a.next.staging.GetGeneration() != next.GetGeneration() {
		a.clear(stagedTable)
		a.clear(carriedTable)
	}
	if a.next.staging.GetAttempt() != next.GetAttempt() {
		a.clear(carriedTable)
	}
	into := stagedTable
	if c.GetAttempt() > 0 {
		into = carriedTable
	}
	for _, row := range c.GetRows() {
		must(a.txn.Insert(into, &entry{table: row.GetTable(), key: row.GetKey(), value: row.Value}))
	}
	a.next.staging = next
	return true
}

// nextStaging says how far a restore is once a chunk is staged, and whether the chunk may be staged at all: a new generation
// takes the place of whatever was there, so that an aborted restore stands in nobody's way, and every other chunk must be the
// one that follows.
func nextStaging(now *statev1.Staging, c *statev1.RestoreChunk) (*statev1.Staging, bool) {
	same := now.GetGeneration() == c.GetGeneration()
	switch {
	case c.GetGeneration() == "":
		return nil, false
	case !same && c.GetAttempt() == 0 && c.GetSequence() == 0:
		return &statev1.Staging{Generation: c.GetGeneration(), Chunks: 1}, true
	case !same:
		return nil, false
	case c.GetAttempt() == 0 && now.GetAttempt() == 0 && c.GetSequence() == now.GetChunks():
		return &statev1.Staging{Generation: c.GetGeneration(), Chunks: now.GetChunks() + 1}, true
	case c.GetAttempt() > now.GetAttempt() && c.GetSequence() == 0:
		return &statev1.Staging{Generation: c.GetGeneration(), Chunks: now.GetChunks(), Attempt: c.GetAttempt(), CarriedChunks: 1}, true
	case c.GetAttempt() > 0 && c.GetAttempt() == now.GetAttempt() && c.GetSequence() == now.GetCarriedChunks():
		return &statev1.Staging{Generation: c.GetGeneration(), Chunks: now.GetChunks(), Attempt: c.GetAttempt(), CarriedChunks: c.GetSequence() + 1}, true
	}
	return nil, false
}

// swap replaces all rows by the staged ones, if they are complete and the conditions hold. All rows take the revision of the
// swap, and no prefix of any table keeps a lower one: whatever was read before is no longer as it was.
func (a *applying) swap(c *statev1.RestoreSwap) bool {
	s := a.next.staging
	if s == nil || s.GetGeneration() != c.GetGeneration() || s.GetChunks() != c.GetChunks() ||
		s.GetAttempt() != c.GetAttempt() || s.GetCarriedChunks() != c.GetCarriedChunks() {
		return false
	}
	if c.GetUntouched() && a.changedAtAll(c.GetBase()) {
		return false
	}
	for _, table := range c.GetTables() {
		if a.changedSince(table, "", a.next.floors, c.GetBase()) {
			return false
		}
	}

	at := a.next.revision
	for _, memtable := range []string{rowsTable, tombstonesTable} {
		for e := range entries(a.txn, memtable) {
			a.next.floors[e.table] = at
		}
		a.clear(memtable)
	}
	for table := range a.next.floors {
		a.next.floors[table] = at
	}
	insert := func(e *entry) {
		a.next.floors[e.table] = at
		must(a.txn.Insert(rowsTable, &entry{table: e.table, key: e.key, value: e.value, revision: at}))
	}
	for e := range entries(a.txn, stagedTable) {
		hidden, err := a.txn.First(carriedTable, byID, e.table, e.key)
		must(err)
		if hidden == nil {
			insert(e)
		}
	}
	for e := range entries(a.txn, carriedTable) {
		if e.value != nil {
			insert(e)
		}
	}
	a.clear(stagedTable)
	a.clear(carriedTable)
	a.next.tombstones = 0
	a.next.staging = nil
	a.next.clusterID = c.GetClusterId()
	a.changes, a.order = map[rowID]*entry{}, nil
	a.replaced = true
	return true
}

func (a *applying) changedAtAll(since uint64) bool {
	for _, memtable := range []string{rowsTable, tombstonesTable} {
		for range a.since(memtable, since) {
			return true
		}
	}
	for _, floor := range a.next.floors {
		if floor > since {
			return true
		}
	}
	return false
}

// abort forgets a restore that is not going to end.
func (a *applying) abort(c *statev1.RestoreAbort) bool {
	if a.next.staging.GetGeneration() != c.GetGeneration() {
		return false
	}
	a.clear(stagedTable)
	a.clear(carriedTable)
	a.next.staging = nil
	return true
}

func (a *applying) clear(memtable string) {
	_, err := a.txn.DeleteAll(memtable, byID)
	must(err)
}
