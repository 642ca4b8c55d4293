package machine

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
	"github.com/ententehq/entente/raftstore/snapshot"
)

// write writes all of a state, with what Raft needs to continue from it: the deletions that prefix revisions depend on,
// the outcomes of commands that may arrive again, and a restore that is under way.
func (s *State) write(to io.Writer) error {
	rows := count(s.All())
	records := rows + uint64(s.tombstones) + uint64(len(s.floors)) + uint64(len(s.sessions)) +
		count(s.Staged()) + count(s.Carried())
	if s.Staging != nil {
		records++
	}
	w, err := snapshot.NewWriter(to, s.header(records, rows, time.Now()))
	if err != nil {
		return err
	}
	for record := range s.records {
		if err := w.Write(record); err != nil {
			return err
		}
	}
	_, err = w.Finish()
	return err
}

// records iterates over the records of a snapshot of the log, in its order.
func (s *State) records(yield func(*statev1.SnapshotRecord) bool) {
	for r := range s.All() {
		if !yield(rowRecord(r)) {
			return
		}
	}
	for r := range entries(s.txn, tombstonesTable) {
		tombstone := &statev1.Tombstone{Table: r.Table, Key: r.Key, Revision: r.Revision}
		if !yield(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Tombstone{Tombstone: tombstone}}) {
			return
		}
	}
	for _, table := range slices.Sorted(maps.Keys(s.floors)) {
		floor := &statev1.Floor{Table: table, Revision: s.floors[table]}
		if !yield(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Floor{Floor: floor}}) {
			return
		}
	}
	for _, member := range slices.Sorted(maps.Keys(s.sessions)) {
		session := s.sessions[member].message(member)
		if !yield(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Session{Session: session}}) {
			return
		}
	}
	if s.Staging != nil && !yield(&statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Staging{Staging: s.Staging}}) {
		return
	}
	for r := range s.Staged() {
		if !yield(stagedRecord(r, false)) {
			return
		}
	}
	for r := range s.Carried() {
		if !yield(stagedRecord(r, true)) {
			return
		}
	}
}

// WriteRows writes an operator's snapshot: the rows, without how they came about.
func (s *State) WriteRows(to io.Writer, now time.Time) (snapshot.Info, error) {
	rows := count(s.All())
	w, err := snapshot.NewWriter(to, s.header(rows, rows, now))
	if err != nil {
		return snapshot.Info{}, err
	}
	for r := range s.All() {
		if err := w.Write(rowRecord(r)); err != nil {
			return snapshot.Info{}, err
		}
	}
	return w.Finish()
}

func (s *State) header(records, rows uint64, now time.Time) *statev1.SnapshotHeader {
	return &statev1.SnapshotHeader{
		ClusterId: s.ClusterID,
		Revision:  s.Revision,
		Term:      s.Term,
		Time:      timestamppb.New(now),
		Records:   records,
		Rows:      rows,
	}
}

// Read reads a snapshot of either kind to its end and returns its state.
func Read(from io.Reader) (*State, error) {
	_, s, err := readState(from)
	return s, err
}

// readState returns the state of a snapshot, and the database of its own that it is in.
func readState(from io.Reader) (*memdb.MemDB, *State, error) {
	reader, err := snapshot.NewReader(from)
	if err != nil {
		return nil, nil, err
	}
	db, s := newState()
	header := reader.Header()
	s.ClusterID, s.Revision, s.Term = header.GetClusterId(), header.GetRevision(), header.GetTerm()
	txn := db.Txn(true)
	defer txn.Abort() // without effect after the commit
	for {
		record, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if err := s.add(txn, record); err != nil {
			return nil, nil, fmt.Errorf("read snapshot: %w", err)
		}
	}
	txn.Commit()
	s.txn = db.Txn(false)
	return db, s, nil
}

// add adds one record to a state that is being read.
func (s *State) add(txn *memdb.Txn, record *statev1.SnapshotRecord) error {
	switch k := record.GetKind().(type) {
	case *statev1.SnapshotRecord_Row:
		return s.insert(txn, rowsTable, &Row{
			Table: k.Row.GetTable(), Key: k.Row.GetKey(), Value: present(k.Row.GetValue()),
			Revision: k.Row.GetRevision(),
		})
	case *statev1.SnapshotRecord_Tombstone:
		s.tombstones++
		return s.insert(txn, tombstonesTable, &Row{
			Table: k.Tombstone.GetTable(), Key: k.Tombstone.GetKey(), Revision: k.Tombstone.GetRevision(),
		})
	case *statev1.SnapshotRecord_Floor:
		s.floors[k.Floor.GetTable()] = k.Floor.GetRevision()
	case *statev1.SnapshotRecord_Session:
		s.sessions[k.Session.GetMember()] = sessionOf(k.Session)
	case *statev1.SnapshotRecord_Staging:
		s.Staging = k.Staging
	case *statev1.SnapshotRecord_Staged:
		into := stagedTable
		if k.Staged.GetCarried() {
			into = carriedTable
		}
		return s.insert(txn, into, &Row{Table: k.Staged.GetTable(), Key: k.Staged.GetKey(), Value: k.Staged.Value})
	}
	return nil
}

// insert adds a row that is in no table yet to a state that is being read.
func (s *State) insert(txn *memdb.Txn, memtable string, r *Row) error {
	s.sums.of(memtable).add(r)
	return txn.Insert(memtable, r)
}

func rowRecord(r *Row) *statev1.SnapshotRecord {
	message := &statev1.SnapshotRow{Table: r.Table, Key: r.Key, Value: r.Value, Revision: r.Revision}
	return &statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Row{Row: message}}
}

func stagedRecord(r *Row, carried bool) *statev1.SnapshotRecord {
	message := &statev1.StagedRow{Table: r.Table, Key: r.Key, Value: r.Value, Carried: carried}
	return &statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Staged{Staged: message}}
}

// present distinguishes an empty value from none, which would be a deletion.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

func (s *session) message(member string) *statev1.Session {
	m := &statev1.Session{Member: member, Incarnation: s.incarnation, Floor: s.floor, Revision: s.revision}
	for _, counter := range slices.Sorted(maps.Keys(s.outcomes)) {
		o := s.outcomes[counter]
		m.Outcomes = append(m.Outcomes, &statev1.Outcome{Counter: counter, Applied: o.Applied, Revision: o.Revision})
	}
	return m
}

func sessionOf(m *statev1.Session) *session {
	s := &session{
		incarnation: m.GetIncarnation(), floor: m.GetFloor(), revision: m.GetRevision(),
		outcomes: map[uint64]Outcome{},
	}
	for _, o := range m.GetOutcomes() {
		s.outcomes[o.GetCounter()] = Outcome{Applied: o.GetApplied(), Revision: o.GetRevision()}
	}
	return s
}
