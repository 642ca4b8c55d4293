package snapshot

import (
	"cmp"
	"errors"
	"fmt"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// recordOrder checks each record of a snapshot by itself and against the one before it: the kinds follow each other,
// and within a kind the records ascend, which excludes duplicates. Writer and reader apply the same rules.
type recordOrder struct {
	last recordID
}

// recordID is the sort key of a record.
type recordID struct {
	kind       int
	table, key string
}

func (o *recordOrder) check(record *statev1.SnapshotRecord) error {
	id, err := identify(record)
	if err != nil {
		return err
	}
	last := o.last
	if last.compare(id) >= 0 {
		return fmt.Errorf("the record %v comes after %v", id, last)
	}
	o.last = id
	return nil
}

var errIncompleteRecord = errors.New("a record is incomplete")

// identify checks that a record is complete and returns its sort key.
func identify(record *statev1.SnapshotRecord) (recordID, error) {
	var id recordID
	var complete bool
	switch k := record.GetKind().(type) {
	case *statev1.SnapshotRecord_Row:
		id = recordID{kind: 1, table: k.Row.GetTable(), key: k.Row.GetKey()}
		complete = k.Row.GetRevision() != 0 && id.namesRow()
	case *statev1.SnapshotRecord_Tombstone:
		id = recordID{kind: 2, table: k.Tombstone.GetTable(), key: k.Tombstone.GetKey()}
		complete = k.Tombstone.GetRevision() != 0 && id.namesRow()
	case *statev1.SnapshotRecord_Floor:
		id = recordID{kind: 3, table: k.Floor.GetTable()}
		complete = k.Floor.GetRevision() != 0 && row.CheckTable(id.table) == nil
	case *statev1.SnapshotRecord_Session:
		id = recordID{kind: 4, key: k.Session.GetMember()}
		complete = id.key != ""
	case *statev1.SnapshotRecord_Staging:
		id = recordID{kind: 5}
		complete = k.Staging.GetGeneration() != ""
	case *statev1.SnapshotRecord_Staged:
		id = recordID{kind: 6, table: k.Staged.GetTable(), key: k.Staged.GetKey()}
		if k.Staged.GetCarried() {
			id.kind = 7
		}
		complete = id.namesRow() && (k.Staged.GetCarried() || k.Staged.Value != nil)
	default:
		return recordID{}, errors.New("a record is of no known kind")
	}
	if !complete {
		return recordID{}, fmt.Errorf("%w: %v", errIncompleteRecord, id)
	}
	return id, nil
}

func (id recordID) compare(other recordID) int {
	return cmp.Or(cmp.Compare(id.kind, other.kind), cmp.Compare(id.table, other.table), cmp.Compare(id.key, other.key))
}

func (id recordID) namesRow() bool { return row.Check(id.table, id.key) == nil }

var kindNames = [...]string{"nothing", "row", "tombstone", "floor", "session", "staging", "staged row", "carried row"}

// String describes the record for an error.
func (id recordID) String() string {
	if id.table == "" && id.key == "" {
		return kindNames[id.kind]
	}
	return fmt.Sprintf("%s %q of %q", kindNames[id.kind], id.key, id.table)
}

func checkHeader(h *statev1.SnapshotHeader) error {
	switch n := len(h.GetClusterId()); {
	case n == 0:
		return errors.New("its header names no cluster")
	case n > maxClusterIDBytes:
		return fmt.Errorf("its header's cluster id has %d bytes; the limit is %d", n, maxClusterIDBytes)
	}
	switch t := h.GetTime(); {
	case t == nil:
		return errors.New("its header has no time")
	case !t.IsValid():
		return fmt.Errorf("its header's time is not a time: it has %d seconds and %d nanoseconds",
			t.GetSeconds(), t.GetNanos())
	}
	if h.GetRows() > h.GetRecords() {
		return fmt.Errorf("its header announces %d rows among %d records", h.GetRows(), h.GetRecords())
	}
	return nil
}

func headerInfo(h *statev1.SnapshotHeader) Info {
	return Info{
		FormatVersion: formatVersion,
		ClusterID:     h.GetClusterId(),
		Revision:      row.Revision(h.GetRevision()),
		Time:          h.GetTime().AsTime(),
	}
}
