package raftstore

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// Tx is a transaction under way. It reads the state that it began with, and what it wrote itself; it records both. It belongs
// to the function that [Store.Update] calls, and to one goroutine. Rows that it wrote itself have revision 0.
type Tx struct {
	state    *state
	read     map[rowID]uint64 // the revision that each row was read at; 0: absent
	listed   map[Prefix]bool
	written  map[rowID][]byte // nil: deleted
	size     int
	limit    int // of size: far past what a command holds, but before memory is filled
	tooLarge error
}

type rowID struct{ table, key string }

func newTx(s *state) *Tx {
	return &Tx{state: s, read: map[rowID]uint64{}, listed: map[Prefix]bool{}, written: map[rowID][]byte{}, limit: 4 * maxCommand}
}

// Revision returns the revision of the state on which the transaction runs.
func (tx *Tx) Revision() Revision { return Revision(tx.state.revision) }

// ClusterID returns the identity of the cluster.
func (tx *Tx) ClusterID() string { return tx.state.clusterID }

func (tx *Tx) row(table, key string) (*entry, bool) {
	id := rowID{table, key}
	if value, ok := tx.written[id]; ok {
		return &entry{table: table, key: key, value: value}, value != nil
	}
	e, ok := tx.state.contents().get(table, key)
	if !ok {
		tx.read[id] = 0
		return nil, false
	}
	tx.read[id] = e.revision
	return e, true
}

func (tx *Tx) rows(table, prefix string) iter.Seq[*entry] {
	tx.listed[Prefix{table, prefix}] = true
	stored := tx.state.contents().below(rowsTable, table, prefix)
	if len(tx.written) == 0 {
		return stored
	}
	return tx.withWritten(stored, table, prefix)
}

// withWritten lays what the transaction wrote over what is stored, in key order.
func (tx *Tx) withWritten(stored iter.Seq[*entry], table, prefix string) iter.Seq[*entry] {
	var own []string
	for id := range tx.written {
		if id.table == table && strings.HasPrefix(id.key, prefix) {
			own = append(own, id.key)
		}
	}
	slices.Sort(own)
	// What was written is looked up now: a caller may write while it lists.
	entries := make([]*entry, len(own))
	for i, key := range own {
		id := rowID{table, key}
		entries[i] = &entry{table: table, key: key, value: tx.written[id]}
	}
	return func(yield func(*entry) bool) {
		next := 0
		before := func(e *entry) bool { // yields the written rows that come before e, or in its place
			for next < len(entries) && (e == nil || entries[next].key < e.key) {
				if w := entries[next]; w.value != nil && !yield(w) {
					return false
				}
				next++
			}
			return true
		}
		for e := range stored {
			if !before(e) {
				return
			}
			if next < len(entries) && entries[next].key == e.key {
				e = entries[next]
				next++
			}
			if e.value != nil && !yield(e) {
				return
			}
		}
		before(nil)
	}
}

func (tx *Tx) prefixRevision(table, prefix string) Revision {
	tx.listed[Prefix{table, prefix}] = true
	return tx.state.prefixRevision(table, prefix)
}

// write records a change; a nil value deletes. What is already as asked is recorded as read instead, so that the
// transaction still fails when somebody else changes it.
func (tx *Tx) write(table, key string, value []byte) error {
	id := rowID{table, key}
	stored, exists := tx.state.contents().get(table, key)
	if value == nil && !exists || value != nil && exists && bytes.Equal(value, stored.value) {
		delete(tx.written, id)
		tx.read[id] = 0
		if exists {
			tx.read[id] = stored.revision
		}
		return nil
	}
	if value != nil && len(value) == 0 {
		value = []byte{} // an empty message is a value
	}
	tx.written[id] = value
	if tx.size += len(table) + len(key) + len(value); tx.size > tx.limit {
		tx.tooLarge = fmt.Errorf("transaction writes more than %d bytes, of which the last is row %q of %s: %w", tx.limit, key, table, ErrTooLarge)
		return tx.tooLarge
	}
	return nil
}

// command turns what was recorded into a transaction for the log, in an order that depends on nothing but the contents.
func (tx *Tx) command() (*statev1.Transaction, error) {
	if tx.tooLarge != nil {
		return nil, tx.tooLarge
	}
	c := &statev1.Transaction{Base: tx.state.revision}
	for _, p := range sortedPrefixes(tx.listed) {
		c.Prefixes = append(c.Prefixes, &statev1.PrefixCondition{Table: p.Table, Prefix: p.Key})
	}
	for _, id := range sortedRows(maps.Keys(tx.read)) {
		if tx.covered(id) {
			continue
		}
		c.Rows = append(c.Rows, &statev1.RowCondition{Table: id.table, Key: id.key, Revision: tx.read[id]})
	}
	for _, id := range sortedRows(maps.Keys(tx.written)) {
		c.Changes = append(c.Changes, &statev1.RowChange{Table: id.table, Key: id.key, Value: tx.written[id]})
	}
	if size := proto.Size(c); size > maxTransaction {
		return nil, fmt.Errorf("transaction reads and writes %d bytes, and at most %d fit into a command: %w", size, maxTransaction, ErrTooLarge)
	}
	return c, nil
}

// covered reports whether a prefix that was listed already stands for a row that was read.
func (tx *Tx) covered(id rowID) bool {
	for p := range tx.listed {
		if p.Holds(id.table, id.key) {
			return true
		}
	}
	return false
}

// unchanged reports whether all that the transaction read is the same in a later state.
func (tx *Tx) unchanged(in *state) bool {
	for id, revision := range tx.read {
		var now uint64
		if e, ok := in.contents().get(id.table, id.key); ok {
			now = e.revision
		}
		if now != revision {
			return false
		}
	}
	for p := range tx.listed {
		if in.contents().changedSince(p.Table, p.Key, in.floors, tx.state.revision) {
			return false
		}
	}
	return true
}

// sortedPrefixes leaves out prefixes that lie below another.
func sortedPrefixes(set map[Prefix]bool) []Prefix {
	all := slices.Collect(maps.Keys(set))
	sort.Slice(all, func(i, j int) bool {
		return all[i].Table < all[j].Table || all[i].Table == all[j].Table && all[i].Key < all[j].Key
	})
	var kept []Prefix
	for _, p := range all {
		if n := len(kept); n == 0 || !kept[n-1].Holds(p.Table, p.Key) {
			kept = append(kept, p)
		}
	}
	return kept
}

func sortedRows(ids iter.Seq[rowID]) []rowID {
	all := slices.Collect(ids)
	sort.Slice(all, func(i, j int) bool {
		return all[i].table < all[j].table || all[i].table == all[j].table && all[i].key < all[j].key
	})
	return all
}
