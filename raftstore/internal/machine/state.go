package machine

import (
	"encoding/binary"
	"fmt"
	"iter"
	"strings"

	"github.com/hashicorp/go-memdb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// Row is one row, or one tombstone, whose value is nil. It never changes once it is in a state.
type Row struct {
	Table, Key string
	Value      []byte
	Revision   uint64
}

// The tables of the in-memory database: one generic table of rows, whatever they mean, one of deletions, and two that a
// restore fills before it swaps.
const (
	rowsTable       = "rows"
	tombstonesTable = "tombstones"
	stagedTable     = "staged"
	carriedTable    = "carried"

	byID       = "id"
	byRevision = "revision"
)

var memorySchema = &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
	rowsTable:       rowSchema(rowsTable),
	tombstonesTable: rowSchema(tombstonesTable),
	stagedTable:     stagingSchema(stagedTable),
	carriedTable:    stagingSchema(carriedTable),
}}

func rowSchema(name string) *memdb.TableSchema {
	return &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		byID:       {Name: byID, Unique: true, Indexer: idIndex{}},
		byRevision: {Name: byRevision, Unique: true, Indexer: revisionIndex{}},
	}}
}

func stagingSchema(name string) *memdb.TableSchema {
	return &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		byID: {Name: byID, Unique: true, Indexer: idIndex{}},
	}}
}

// idIndex orders rows by table and key. The name of a table has no NUL, so that none is the beginning of another's
// rows.
type idIndex struct{}

func (idIndex) FromObject(raw any) (bool, []byte, error) {
	r := raw.(*Row)
	return true, memoryID(r.Table, r.Key), nil
}

func (idIndex) FromArgs(args ...any) ([]byte, error) {
	if len(args) != 2 {
		return nil, fmt.Errorf("want table and key, got %d arguments", len(args))
	}
	return memoryID(args[0].(string), args[1].(string)), nil
}

func (i idIndex) PrefixFromArgs(args ...any) ([]byte, error) { return i.FromArgs(args...) }

func memoryID(table, key string) []byte {
	id := make([]byte, 0, len(table)+1+len(key))
	id = append(id, table...)
	id = append(id, 0)
	return append(id, key...)
}

// revisionIndex orders rows by revision: the changes since a revision are found without visiting the other rows.
type revisionIndex struct{}

func (revisionIndex) FromObject(raw any) (bool, []byte, error) {
	r := raw.(*Row)
	id := make([]byte, 8, 8+len(r.Table)+1+len(r.Key))
	binary.BigEndian.PutUint64(id, r.Revision)
	id = append(id, r.Table...)
	id = append(id, 0)
	return true, append(id, r.Key...), nil
}

func (revisionIndex) FromArgs(args ...any) ([]byte, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("want a revision, got %d arguments", len(args))
	}
	return binary.BigEndian.AppendUint64(nil, args[0].(uint64)), nil
}

// State is everything that is replicated, as of one revision. It is immutable and safe for concurrent use.
type State struct {
	Revision uint64
	// Term is that of the last entry.
	Term uint64
	// ClusterID is empty before the first entry.
	ClusterID string
	// Staging is how far a restore has come that is under way. If nil, there is none.
	Staging *statev1.Staging

	txn *memdb.Txn
	// tombstones counts the deletions that are remembered one by one.
	tombstones int
	// floors holds, by table, the newest deletion that is no longer remembered.
	floors   map[string]uint64
	sessions map[string]*session
	// sums has the digest of each table of the in-memory database.
	sums sums
}

// maxTombstones bounds the deletions that are remembered one by one: some 4 MiB of memory.
const maxTombstones = 16384

// newState returns the state before the first entry.
func newState() (*memdb.MemDB, *State) {
	db, err := memdb.NewMemDB(memorySchema)
	must(err)
	// A snapshot of the database does not track the nodes that each transaction replaces, which memdb does for watches.
	// There are none, and where many rows are deleted the tracking would walk the whole tree.
	db = db.Snapshot()
	return db, &State{txn: db.Txn(false), floors: map[string]uint64{}, sessions: map[string]*session{}}
}

// Get returns a row, and whether it exists.
func (s *State) Get(table, key string) (*Row, bool) { return contents{s.txn}.get(table, key) }

// Below iterates over the rows of a table whose key begins with prefix, in key order.
func (s *State) Below(table, prefix string) iter.Seq[*Row] {
	return contents{s.txn}.below(rowsTable, table, prefix)
}

// All iterates over the rows of all tables, in the order of table and key.
func (s *State) All() iter.Seq[*Row] { return entries(s.txn, rowsTable) }

// Staged iterates over the rows of a restore that is under way.
func (s *State) Staged() iter.Seq[*Row] { return entries(s.txn, stagedTable) }

// Carried iterates over the rows that rooms keep over that restore. A nil value is a row that they delete.
func (s *State) Carried() iter.Seq[*Row] { return entries(s.txn, carriedTable) }

// PrefixRevision returns the revision of the last change below a prefix, deletions included.
func (s *State) PrefixRevision(table, prefix string) row.Revision {
	last := s.floors[table]
	for _, memtable := range []string{rowsTable, tombstonesTable} {
		for r := range (contents{s.txn}).below(memtable, table, prefix) {
			last = max(last, r.Revision)
		}
	}
	return row.Revision(last)
}

// ChangedSince reports whether a row below the prefix was written or deleted after a revision.
func (s *State) ChangedSince(table, prefix string, revision uint64) bool {
	return contents{s.txn}.changedSince(table, prefix, s.floors, revision)
}

// Failed returns the first condition of a transaction that does not hold in this state, or nil.
func (s *State) Failed(t *statev1.Transaction) *row.Prefix {
	return contents{s.txn}.failed(s.floors, t)
}

// Incarnation returns the number of a member's last start whose commands are remembered; 0: none is.
func (s *State) Incarnation(member string) uint64 {
	if session := s.sessions[member]; session != nil {
		return session.incarnation
	}
	return 0
}

// Recall returns what is remembered of a command.
func (s *State) Recall(id *statev1.CommandID) (Outcome, Recall) { return lookUp(s.sessions, id) }

// contents reads the rows of a state, or of one that is being built.
type contents struct{ txn *memdb.Txn }

func (c contents) get(table, key string) (*Row, bool) {
	raw, err := c.txn.First(rowsTable, byID, table, key)
	must(err)
	r, ok := raw.(*Row)
	return r, ok
}

func (c contents) below(memtable, table, prefix string) iter.Seq[*Row] {
	return func(yield func(*Row) bool) {
		it, err := c.txn.Get(memtable, byID+"_prefix", table, prefix)
		must(err)
		each(it, yield)
	}
}

// since iterates over the rows written, or the rows deleted, after a revision, oldest first.
func (c contents) since(memtable string, revision uint64) iter.Seq[*Row] {
	return func(yield func(*Row) bool) {
		it, err := c.txn.LowerBound(memtable, byRevision, revision+1)
		must(err)
		each(it, yield)
	}
}

// entries iterates over one memory table in the order of table and key.
func entries(txn *memdb.Txn, memtable string) iter.Seq[*Row] {
	return func(yield func(*Row) bool) {
		it, err := txn.Get(memtable, byID)
		must(err)
		each(it, yield)
	}
}

func each(it memdb.ResultIterator, yield func(*Row) bool) {
	for raw := it.Next(); raw != nil; raw = it.Next() {
		if !yield(raw.(*Row)) {
			return
		}
	}
}

func (c contents) changedSince(table, prefix string, floors map[string]uint64, revision uint64) bool {
	if floors[table] > revision {
		return true // perhaps not below this prefix, but that is forgotten
	}
	for _, memtable := range []string{rowsTable, tombstonesTable} {
		for r := range c.since(memtable, revision) {
			if r.Table == table && strings.HasPrefix(r.Key, prefix) {
				return true
			}
		}
	}
	return false
}

func (c contents) failed(floors map[string]uint64, t *statev1.Transaction) *row.Prefix {
	for _, condition := range t.GetRows() {
		var now uint64
		if r, ok := c.get(condition.GetTable(), condition.GetKey()); ok {
			now = r.Revision
		}
		if now != condition.GetRevision() {
			return &row.Prefix{Table: condition.GetTable(), Key: condition.GetKey()}
		}
	}
	for _, condition := range t.GetPrefixes() {
		if c.changedSince(condition.GetTable(), condition.GetPrefix(), floors, t.GetBase()) {
			return &row.Prefix{Table: condition.GetTable(), Key: condition.GetPrefix()}
		}
	}
	return nil
}

// must panics on errors of the in-memory database, all of which are mistakes in its fixed schema.
func must(err error) {
	if err != nil {
		panic("raftstore: in-memory database: " + err.Error())
	}
}
