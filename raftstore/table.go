package raftstore

import (
	"fmt"
	"iter"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// Revision numbers a state of the store: the Raft index of the entry that led to it. An absent row, and a prefix below
// which there never was a row, have revision 0.
type Revision = row.Revision

// Table is a typed view on the rows of one name. It holds nothing itself; declare one per process and name, as a
// package variable. M is a pointer to a generated message, such as *statev1.Relationship.
type Table[M proto.Message] struct {
	name string
}

// Row is one row of a table, as of the [Reader] that it was read with.
type Row[M proto.Message] struct {
	Key      string
	Value    M
	Revision Revision
}

// Prefix names the rows of a table whose key begins with Key; an empty Key is the whole table.
type Prefix = row.Prefix

// TableOption is a property of a table.
type TableOption int

// RecordsNow declares a table whose changes a member never publishes before its own disk holds the revision, so that it
// never serves an older state of it, whatever happens to the member. It costs the disk a sync for each group of such
// changes. The revision of other changes survives the end of the process, and a loss of power after a second.
const RecordsNow TableOption = 1

var tableNames = struct {
	sync.RWMutex
	taken      map[string]bool
	recordsNow map[string]bool
	writers    map[string]writers
}{taken: map[string]bool{}, recordsNow: map[string]bool{}, writers: map[string]writers{}}

// writers reads which member wrote a row, and names the member that restores it.
type writers struct {
	of      func(value []byte) (member string, err error)
	restore func(value []byte, member string) ([]byte, error)
}

// recordsNow reports whether a table was declared with RecordsNow.
func recordsNow(table string) bool {
	tableNames.RLock()
	defer tableNames.RUnlock()
	return tableNames.recordsNow[table]
}

// NewTable declares the table of that name. It panics if the name is taken in this process, or is not 1 to 64
// characters of a-z, 0-9, '_', '.' and '-': two rooms that write the same rows by accident are a mistake of
// programming.
func NewTable[M proto.Message](name string, options ...TableOption) Table[M] {
	if err := row.CheckTable(name); err != nil {
		panic("raftstore: " + err.Error())
	}
	tableNames.Lock()
	defer tableNames.Unlock()
	if tableNames.taken[name] {
		panic(fmt.Sprintf("raftstore: table %q is declared twice", name))
	}
	tableNames.taken[name] = true
	tableNames.recordsNow[name] = slices.Contains(options, RecordsNow)
	return Table[M]{name: name}
}

// NamesWriter declares that each row of t names the member that wrote it, and returns t. writer returns that member. A
// row that a snapshot brings is written by the member that restores it: restored names it in the row, and writer
// returns it then. The leader refuses the commands of another member by which a row would come under any other name.
// Every member may delete every row, and what the leader itself writes is not checked.
func (t Table[M]) NamesWriter(writer func(M) string, restored func(row M, member string)) Table[M] {
	tableNames.Lock()
	defer tableNames.Unlock()
	tableNames.writers[t.name] = writers{
		of: func(value []byte) (string, error) {
			m, err := t.Decode(value)
			if err != nil {
				return "", err
			}
			return writer(m), nil
		},
		restore: func(value []byte, member string) ([]byte, error) {
			m, err := t.Decode(value)
			if err != nil {
				return nil, fmt.Errorf("a row of %s: %w", t.name, err)
			}
			restored(m, member)
			return proto.Marshal(m)
		},
	}
	return t
}

// writersOf returns what reads the writers of the rows of a table, and whether its rows name them.
func writersOf(table string) (writers, bool) {
	tableNames.RLock()
	defer tableNames.RUnlock()
	w, ok := tableNames.writers[table]
	return w, ok
}

// Name returns the name of the table, as watches and snapshots have it.
func (t Table[M]) Name() string { return t.name }

// Prefix names the rows of t whose key begins with key, for [Store.Watch] and package feed.
func (t Table[M]) Prefix(key string) Prefix { return Prefix{Table: t.name, Key: key} }

// Get returns the row with that key, and whether there is one. The caller owns the value. There is never one with an
// empty key, nor with one that is longer than Put permits.
func (t Table[M]) Get(r Reader, key string) (Row[M], bool, error) {
	e, ok := r.row(t.name, key)
	if !ok {
		return Row[M]{}, false, nil
	}
	row, err := t.decodeRow(e)
	return row, err == nil, err
}

// All iterates over the rows whose key begins with prefix, in key order. An error ends the sequence; it means that a
// row does not decode as M, which no write through this table can cause.
func (t Table[M]) All(r Reader, prefix string) iter.Seq2[Row[M], error] {
	return func(yield func(Row[M], error) bool) {
		for e := range r.rows(t.name, prefix) {
			row, err := t.decodeRow(e)
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

// Revisions iterates over the keys that begin with prefix and the revisions of their rows, in key order. It decodes no
// row: a cache that is made from rows finds those that have changed at little cost.
func (t Table[M]) Revisions(r Reader, prefix string) iter.Seq2[string, Revision] {
	return func(yield func(string, Revision) bool) {
		for e := range r.rows(t.name, prefix) {
			if !yield(e.Key, Revision(e.Revision)) {
				return
			}
		}
	}
}

// RevisionOf returns the revision of the row with that key, and whether there is one. It does not decode it.
func (t Table[M]) RevisionOf(r Reader, key string) (Revision, bool) {
	e, ok := r.row(t.name, key)
	if !ok {
		return 0, false
	}
	return Revision(e.Revision), true
}

// List returns the rows whose key begins with prefix, in key order.
func (t Table[M]) List(r Reader, prefix string) ([]Row[M], error) {
	var rows []Row[M]
	for row, err := range t.All(r, prefix) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// PrefixRevision returns the revision of the last change below prefix, deletions included. It never goes down. It can
// be higher than that change when very many rows of the table were deleted since (see the package comment), never
// lower.
func (t Table[M]) PrefixRevision(r Reader, prefix string) Revision {
	return r.prefixRevision(t.name, prefix)
}

// Put writes a row. Writing the value that it has is no change, and commits nothing. m is not kept.
func (t Table[M]) Put(tx *Tx, key string, m M) error {
	if err := row.CheckKey(key); err != nil {
		return fmt.Errorf("put into %s: %w", t.name, err)
	}
	if !m.ProtoReflect().IsValid() {
		return fmt.Errorf("put %q into %s: the message is nil", key, t.name)
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("put %q into %s: %w", key, t.name, err)
	}
	return tx.write(t.name, key, value)
}

// Delete removes a row. Deleting what is absent is no change.
func (t Table[M]) Delete(tx *Tx, key string) error {
	if err := row.CheckKey(key); err != nil {
		return fmt.Errorf("delete from %s: %w", t.name, err)
	}
	return tx.write(t.name, key, nil)
}

// Decode decodes the value of a [Change]. Fields that this version does not know are kept in the message.
func (t Table[M]) Decode(value []byte) (M, error) {
	var zero M
	m := zero.ProtoReflect().New().Interface().(M)
	if err := proto.Unmarshal(value, m); err != nil {
		return zero, fmt.Errorf("decode a row of %s: %w", t.name, err)
	}
	return m, nil
}

func (t Table[M]) decodeRow(r *machine.Row) (Row[M], error) {
	m, err := t.Decode(r.Value)
	if err != nil {
		return Row[M]{}, fmt.Errorf("row %q: %w", r.Key, err)
	}
	return Row[M]{Key: r.Key, Value: m, Revision: Revision(r.Revision)}, nil
}
