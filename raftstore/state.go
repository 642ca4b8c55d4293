package raftstore

import (
	"encoding/binary"
	"fmt"
	"iter"
	"strings"

	"github.com/hashicorp/go-memdb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// entry is one row, or one tombstone (then value is nil). It never changes once it is in a state.
type entry struct {
	table, key string
	value      []byte
	revision   uint64
}

// The tables of the in-memory database: one generic table of rows, whatever they mean, and one of deletions.
const (
	rowsTable       = "rows"
	tombstonesTable = "tombstones"

	byID       = "id"
	byRevision = "revision"
)

var memorySchema = &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
	rowsTable:       entrySchema(rowsTable),
	tombstonesTable: entrySchema(tombstonesTable),
	stagedTable:     stagingSchema(stagedTable),
	carriedTable:    stagingSchema(carriedTable),
}}

func entrySchema(name string) *memdb.TableSchema {
	return &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		byID:       {Name: byID, Unique: true, Indexer: idIndex{}},
		byRevision: {Name: byRevision, Unique: true, Indexer: revisionIndex{}},
	}}
}

// idIndex orders entries by table and key. A table's name holds no NUL, so that none is the beginning of another's entries.
type idIndex struct{}

func (idIndex) FromObject(raw any) (bool, []byte, error) {
	e := raw.(*entry)
	return true, entryID(e.table, e.key), nil
}

func (idIndex) FromArgs(args ...any) ([]byte, error) {
	if len(args) != 2 {
		return nil, fmt.Errorf("want table and key, got %d arguments", len(args))
	}
	return entryID(args[0].(string), args[1].(string)), nil
}

func (i idIndex) PrefixFromArgs(args ...any) ([]byte, error) { return i.FromArgs(args...) }

func entryID(table, key string) []byte {
	id := make([]byte, 0, len(table)+1+len(key))
	id = append(id, table...)
	id = append(id, 0)
	return append(id, key...)
}

// revisionIndex orders entries by revision: what changed since a revision is found without going through what did not.
type revisionIndex struct{}

func (revisionIndex) FromObject(raw any) (bool, []byte, error) {
	e := raw.(*entry)
	id := make([]byte, 8, 8+len(e.table)+1+len(e.key))
	binary.BigEndian.PutUint64(id, e.revision)
	id = append(id, e.table...)
	id = append(id, 0)
	return true, append(id, e.key...), nil
}

func (revisionIndex) FromArgs(args ...any) ([]byte, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("want a revision, got %d arguments", len(args))
	}
	return binary.BigEndian.AppendUint64(nil, args[0].(uint64)), nil
}

// state is everything that is replicated, as of one revision. It is immutable and safe for concurrent use.
type state struct {
	rows      *memdb.Txn
	revision  uint64
	term      uint64 // of the last entry
	clusterID string
	// tombstones counts the deletions that are remembered one by one.
	tombstones int
	// floors holds, by table, the newest deletion that is no longer remembered.
	floors   map[string]uint64
	sessions map[string]*session
	// staging says how far a restore is that is under way; nil: there is none.
	staging *statev1.Staging
}

// maxTombstones bounds the deletions that are remembered one by one: some 4 MiB of memory.
const maxTombstones = 16384

// contents are the entries below a prefix that a transaction has to see unchanged, or a reader lists.
type contents struct{ txn *memdb.Txn }

func (c contents) get(table, key string) (*entry, bool) {
	raw, err := c.txn.First(rowsTable, byID, table, key)
	if err != nil {
		panic(fmt.Sprintf("raftstore: look up %s %q: %v", table, key, err)) // the schema is fixed: a mistake of programming
	}
	e, ok := raw.(*entry)
	return e, ok
}

func (c contents) below(memtable, table, prefix string) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		it, err := c.txn.Get(memtable, byID+"_prefix", table, prefix)
		if err != nil {
			panic(fmt.Sprintf("raftstore: list %s %q: %v", table, prefix, err))
		}
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if !yield(raw.(*entry)) {
				return
			}
		}
	}
}

// since goes through the rows written, or the rows deleted, after a revision, oldest first.
func (c contents) since(memtable string, revision uint64) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		it, err := c.txn.LowerBound(memtable, byRevision, revision+1)
		if err != nil {
			panic(fmt.Sprintf("raftstore: list changes since %d: %v", revision, err))
		}
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if !yield(raw.(*entry)) {
				return
			}
		}
	}
}

// changedSince reports whether anything below the prefix was written or deleted after a revision.
func (c contents) changedSince(table, prefix string, floors map[string]uint64, revision uint64) bool {
	if floors[table] > revision {
		return true // perhaps not below this prefix, but that is forgotten
	}
	for _, memtable := range []string{rowsTable, tombstonesTable} {
		for e := range c.since(memtable, revision) {
			if e.table == table && strings.HasPrefix(e.key, prefix) {
				return true
			}
		}
	}
	return false
}

func (s *state) contents() contents { return contents{txn: s.rows} }

func (s *state) prefixRevision(table, prefix string) Revision {
	last := s.floors[table]
	for _, memtable := range []string{rowsTable, tombstonesTable} {
		for e := range s.contents().below(memtable, table, prefix) {
			last = max(last, e.revision)
		}
	}
	return Revision(last)
}

// newState is the state before the first entry.
func newState() (*memdb.MemDB, *state) {
	db, err := memdb.NewMemDB(memorySchema)
	if err != nil {
		panic(fmt.Sprintf("raftstore: schema: %v", err)) // fixed at compile time
	}
	// A snapshot keeps no account of which nodes each transaction replaces, for those who wait at one: nobody does, and where many rows
	// are deleted it would walk the whole tree for it.
	db = db.Snapshot()
	return db, &state{rows: db.Txn(false), floors: map[string]uint64{}, sessions: map[string]*session{}}
}
