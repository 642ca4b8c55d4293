package machine

import (
	"iter"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

func count(of iter.Seq[*Row]) (n uint64) {
	for range of {
		n++
	}
	return n
}

// stage keeps the rows of a chunk for the swap, if it is the next chunk.
func (b *builder) stage(c *statev1.RestoreChunk) bool {
	next, ok := nextStaging(b.next.Staging, c)
	if !ok {
		return false
	}
	if b.next.Staging.GetGeneration() != next.GetGeneration() {
		b.clear(stagedTable)
		b.clear(carriedTable)
	}
	if b.next.Staging.GetAttempt() != next.GetAttempt() {
		b.clear(carriedTable)
	}
	into := stagedTable
	if c.GetAttempt() > 0 {
		into = carriedTable
	}
	for _, staged := range c.GetRows() {
		b.insert(into, &Row{Table: staged.GetTable(), Key: staged.GetKey(), Value: staged.Value})
	}
	b.next.Staging = next
	return true
}

// nextStaging returns how far a restore has come once a chunk is staged, and whether the chunk may be staged at all. A
// new generation replaces whatever is staged, so that an aborted restore blocks none that follows. Every other chunk
// must be the next one.
func nextStaging(now *statev1.Staging, c *statev1.RestoreChunk) (*statev1.Staging, bool) {
	same := now.GetGeneration() == c.GetGeneration()
	next := &statev1.Staging{Generation: c.GetGeneration(), Chunks: now.GetChunks()}
	switch {
	case c.GetGeneration() == "":
		return nil, false
	case !same && c.GetAttempt() == 0 && c.GetSequence() == 0:
		next.Chunks = 1
		return next, true
	case !same:
		return nil, false
	case c.GetAttempt() == 0 && now.GetAttempt() == 0 && c.GetSequence() == now.GetChunks():
		next.Chunks++
		return next, true
	case c.GetAttempt() > now.GetAttempt() && c.GetSequence() == 0:
		next.Attempt, next.CarriedChunks = c.GetAttempt(), 1
		return next, true
	case c.GetAttempt() > 0 && c.GetAttempt() == now.GetAttempt() && c.GetSequence() == now.GetCarriedChunks():
		next.Attempt, next.CarriedChunks = c.GetAttempt(), c.GetSequence()+1
		return next, true
	}
	return nil, false
}

// swap replaces all rows by the staged ones, if these are complete and the conditions hold. All rows and the prefixes
// of all tables take the revision of the swap, so that every earlier read counts as outdated.
func (b *builder) swap(c *statev1.RestoreSwap) bool {
	if !b.swappable(c) {
		return false
	}
	at := b.next.Revision
	for _, memtable := range []string{rowsTable, tombstonesTable} {
		for r := range entries(b.txn, memtable) {
			b.next.floors[r.Table] = at
		}
		b.clear(memtable)
	}
	for table := range b.next.floors {
		b.next.floors[table] = at
	}
	insert := func(r *Row) {
		b.next.floors[r.Table] = at
		b.insert(rowsTable, &Row{Table: r.Table, Key: r.Key, Value: r.Value, Revision: at})
	}
	for r := range entries(b.txn, stagedTable) {
		hidden, err := b.txn.First(carriedTable, byID, r.Table, r.Key)
		must(err)
		if hidden == nil {
			insert(r)
		}
	}
	for r := range entries(b.txn, carriedTable) {
		if r.Value != nil {
			insert(r)
		}
	}
	b.clear(stagedTable)
	b.clear(carriedTable)
	b.next.tombstones = 0
	b.next.Staging = nil
	b.next.ClusterID = c.GetClusterId()
	clear(b.changes)
	b.order = nil
	b.replaced = true
	return true
}

// swappable reports whether what is staged is complete, and the rows that it was made from are unchanged.
func (b *builder) swappable(c *statev1.RestoreSwap) bool {
	s := b.next.Staging
	if s == nil || s.GetGeneration() != c.GetGeneration() || s.GetChunks() != c.GetChunks() ||
		s.GetAttempt() != c.GetAttempt() || s.GetCarriedChunks() != c.GetCarriedChunks() {
		return false
	}
	if c.GetUntouched() && b.changedAtAll(c.GetBase()) {
		return false
	}
	for _, table := range c.GetTables() {
		if b.changedSince(table, "", b.next.floors, c.GetBase()) {
			return false
		}
	}
	return true
}

func (b *builder) changedAtAll(since uint64) bool {
	for _, memtable := range []string{rowsTable, tombstonesTable} {
		for range b.since(memtable, since) {
			return true
		}
	}
	for _, floor := range b.next.floors {
		if floor > since {
			return true
		}
	}
	return false
}

// abort forgets a restore that will not end.
func (b *builder) abort(c *statev1.RestoreAbort) bool {
	if b.next.Staging.GetGeneration() != c.GetGeneration() {
		return false
	}
	b.clear(stagedTable)
	b.clear(carriedTable)
	b.next.Staging = nil
	return true
}

func (b *builder) clear(memtable string) {
	_, err := b.txn.DeleteAll(memtable, byID)
	must(err)
	*b.next.sums.of(memtable) = sum{}
}
