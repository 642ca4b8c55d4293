package raftstore

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// maxCarriedBytes bounds what all rooms together keep over a restore.
const maxCarriedBytes = 64 << 20

// survivors is what rooms have registered for a restore.
type survivors struct {
	mu      sync.Mutex
	carries []carrier
	founded []func(v *View, table, key string) bool
}

type carrier struct {
	room string
	fn   func(before, restored *View, tx *Tx) error
}

// Survive registers what of a room survives an operator's restore. Before the restore ends, fn is called on the
// member that runs it: before is the present state, restored the snapshot's, and tx reads the restored state with what
// fn and the rooms before it have written. What fn writes replaces the snapshot's rows in the same entry that puts
// these into use. If a table that fn read in before has changed by then, fn is called again, so it must have no side
// effects; a table that it did not read may change unnoticed. Its error aborts the restore, which returns it.
//
// Rooms register when they are constructed, in the same order on every member, and together keep at most 64 MiB.
func (s Snapshots) Survive(room string, fn func(before, restored *View, tx *Tx) error) {
	r := s.store.survivors
	r.mu.Lock()
	defer r.mu.Unlock()
	r.carries = append(r.carries, carrier{room, fn})
}

// CountAsEmpty registers rows that a new cluster writes by itself, before any request: founded reports whether a row is
// one of them. A cluster that has no others counts as empty, and adopts another cluster's snapshot together with its
// identity. founded is called from any goroutine, for one row after the other.
func (s Snapshots) CountAsEmpty(founded func(v *View, table, key string) bool) {
	r := s.store.survivors
	r.mu.Lock()
	defer r.mu.Unlock()
	r.founded = append(r.founded, founded)
}

// adoptable refuses a snapshot of another cluster, unless this one is empty.
func (r *survivors) adoptable(v *View, clusterID string) error {
	if v.ClusterID() == clusterID {
		return nil
	}
	if e := r.settled(v); e != nil {
		return fmt.Errorf("%w: the snapshot's is %s, this is %s, which holds %q in %s",
			ErrOtherCluster, clusterID, v.ClusterID(), e.Key, e.Table)
	}
	return nil
}

// settled returns a row that a new cluster would not have, or nil.
func (r *survivors) settled(v *View) *machine.Row {
	r.mu.Lock()
	founded := slices.Clone(r.founded)
	r.mu.Unlock()
	for e := range v.state.All() {
		if !slices.ContainsFunc(
			founded,
			func(f func(*View, string, string) bool) bool { return f(v, e.Table, e.Key) },
		) {
			return e
		}
	}
	return nil
}

// carry lets every room write what survives the restore. It returns those rows, and the tables that were read in
// before.
func (r *survivors) carry(before, restored *machine.State) ([]string, []*statev1.StagedRow, error) {
	r.mu.Lock()
	carriers := slices.Clone(r.carries)
	r.mu.Unlock()
	seen := &tablesSeen{tables: map[string]bool{}}
	tx := newTx(restored)
	tx.limit = maxCarriedBytes
	for _, c := range carriers {
		if err := c.fn(&View{state: before, seen: seen}, &View{state: restored}, tx); err != nil {
			return nil, nil, fmt.Errorf("carry over the rows of %s: %w", c.room, err)
		}
	}
	if tx.tooLarge != nil {
		return nil, nil, fmt.Errorf("carry over the rows that survive a restore: %w", tx.tooLarge)
	}
	var rows []*statev1.StagedRow
	for _, id := range sortedRows(maps.Keys(tx.written)) {
		rows = append(rows, &statev1.StagedRow{Table: id.Table, Key: id.Key, Value: tx.written[id], Carried: true})
	}
	return seen.sorted(), rows, nil
}

// tablesSeen records which tables were read through a view.
type tablesSeen struct {
	mu     sync.Mutex
	tables map[string]bool
}

// record does nothing on a nil tablesSeen, which is that of an ordinary view.
func (t *tablesSeen) record(table string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tables[table] = true
}

func (t *tablesSeen) sorted() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.tables))
}
