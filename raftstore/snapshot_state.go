package raftstore

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// writeState writes all of a state, with what Raft needs to go on from it: the deletions that prefix revisions rest on, the
// outcomes of commands that may be sent again, and a restore that is under way.
func writeState(w io.Writer, s *state) error {
	rows := s.entries(rowsTable)
	staged, carried := s.entries(stagedTable), s.entries(carriedTable)
	records := count(rows) + uint64(s.tombstones) + uint64(len(s.floors)) + uint64(len(s.sessions)) + count(staged) + count(carried)
	if s.staging != nil {
		records++
	}
	sw, err := newSnapshotWriter(w, s.header(records, count(rows), time.Now()))
	if err != nil {
		return err
	}
	write := func(record *statev1.SnapshotRecord) {
		if err == nil {
			err = sw.write(record)
		}
	}
	for e := range rows {
		write(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Row{Row: rowToProto(e)}})
	}
	for e := range s.entries(tombstonesTable) {
		write(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Tombstone{
			Tombstone: &statev1.Tombstone{Table: e.table, Key: e.key, Revision: e.revision}}})
	}
	for _, table := range slices.Sorted(maps.Keys(s.floors)) {
		write(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Floor{
			Floor: &statev1.Floor{Table: table, Revision: s.floors[table]}}})
	}
	for _, member := range slices.Sorted(maps.Keys(s.sessions)) {
		write(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Session{Session: sessionToProto(member, s.sessions[member])}})
	}
	if s.staging != nil {
		write(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Staging{Staging: s.staging}})
	}
	for e := range staged {
		write(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Staged{Staged: &statev1.StagedRow{Table: e.table, Key: e.key, Value: e.value}}})
	}
	for e := range carried {
		write(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Staged{Staged: &statev1.StagedRow{Table: e.table, Key: e.key, Value: e.value, Carried: true}}})
	}
	if err != nil {
		return err
	}
	_, err = sw.finish()
	return err
}

// writeRows writes what an operator's snapshot holds: the rows, and nothing of how they came about.
func writeRows(w io.Writer, s *state, now time.Time) (Info, error) {
	rows := s.entries(rowsTable)
	sw, err := newSnapshotWriter(w, s.header(count(rows), count(rows), now))
	if err != nil {
		return Info{}, err
	}
	for e := range rows {
		if err := sw.write(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Row{Row: rowToProto(e)}}); err != nil {
			return Info{}, err
		}
	}
	return sw.finish()
}

func (s *state) header(records, rows uint64, now time.Time) *statev1.SnapshotHeader {
	return &statev1.SnapshotHeader{
		ClusterId: s.clusterID,
		Revision:  s.revision,
		Term:      s.term,
		Time:      timestamppb.New(now),
		Records:   records,
		Rows:      rows,
	}
}

// readState reads a snapshot of either kind to its end and returns the state that it holds, in a database of its own.
func readState(r io.Reader) (*memdb.MemDB, *state, error) {
	sr, err := newSnapshotReader(r)
	if err != nil {
		return nil, nil, err
	}
	db, s := newState()
	s.clusterID, s.revision, s.term = sr.header.GetClusterId(), sr.header.GetRevision(), sr.header.GetTerm()
	txn := db.Txn(true)
	defer txn.Abort() // nothing, once it is committed
	for {
		record, err := sr.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if err := s.take(txn, record); err != nil {
			return nil, nil, fmt.Errorf("read snapshot: %w", err)
		}
	}
	txn.Commit()
	s.rows = db.Txn(false)
	return db, s, nil
}

// take adds one record to a state that is being read.
func (s *state) take(txn *memdb.Txn, record *statev1.SnapshotRecord) error {
	switch k := record.GetKind().(type) {
	case *statev1.SnapshotRecord_Row:
		return txn.Insert(rowsTable, &entry{table: k.Row.GetTable(), key: k.Row.GetKey(), value: present(k.Row.GetValue()), revision: k.Row.GetRevision()})
	case *statev1.SnapshotRecord_Tombstone:
		s.tombstones++
		return txn.Insert(tombstonesTable, &entry{table: k.Tombstone.GetTable(), key: k.Tombstone.GetKey(), revision: k.Tombstone.GetRevision()})
	case *statev1.SnapshotRecord_Floor:
		s.floors[k.Floor.GetTable()] = k.Floor.GetRevision()
	case *statev1.SnapshotRecord_Session:
		s.sessions[k.Session.GetMember()] = sessionFromProto(k.Session)
	case *statev1.SnapshotRecord_Staging:
		s.staging = k.Staging
	case *statev1.SnapshotRecord_Staged:
		if k.Staged.GetCarried() {
			return txn.Insert(carriedTable, &entry{table: k.Staged.GetTable(), key: k.Staged.GetKey(), value: k.Staged.Value})
		}
		return txn.Insert(stagedTable, &entry{table: k.Staged.GetTable(), key: k.Staged.GetKey(), value: k.Staged.Value})
	}
	return nil
}

func rowToProto(e *entry) *statev1.SnapshotRow {
	return &statev1.SnapshotRow{Table: e.table, Key: e.key, Value: e.value, Revision: e.revision}
}

// present keeps an empty value apart from none, which would be a deletion.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

func sessionToProto(member string, s *session) *statev1.Session {
	m := &statev1.Session{Member: member, Incarnation: s.incarnation, Floor: s.floor, Revision: s.revision}
	for _, counter := range slices.Sorted(maps.Keys(s.outcomes)) {
		o := s.outcomes[counter]
		m.Outcomes = append(m.Outcomes, &statev1.Outcome{Counter: counter, Applied: o.applied, Revision: o.revision})
	}
	return m
}

func sessionFromProto(m *statev1.Session) *session {
	s := &session{incarnation: m.GetIncarnation(), floor: m.GetFloor(), revision: m.GetRevision(), outcomes: map[uint64]outcome{}}
	for _, o := range m.GetOutcomes() {
		s.outcomes[o.GetCounter()] = outcome{applied: o.GetApplied(), revision: o.GetRevision()}
	}
	return s
}
