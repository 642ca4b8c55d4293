package machine

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// logOf returns a log whose entry N writes the row "k" of a table, after an entry that changes nothing.
func logOf(t *testing.T, table string, last uint64) *raft.InmemStore {
	store := raft.NewInmemStore()
	require.NoError(t, store.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogNoop}))
	for index := uint64(2); index <= last; index++ {
		require.NoError(t, store.StoreLog(writing(t, table, index)))
	}
	return store
}

func writing(t *testing.T, table string, index uint64) *raft.Log {
	data, err := proto.Marshal(&statev1.Entry{Version: 1, Commands: []*statev1.Command{{
		Id: &statev1.CommandID{Member: "m", Incarnation: 1, Counter: index},
		Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{
			Changes: []*statev1.RowChange{{Table: table, Key: "k", Value: []byte{byte(index)}}},
		}},
	}}})
	require.NoError(t, err)
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data}
}

func always() bool { return true }

func newResuming(t *testing.T) *Machine {
	return New(func(err error) { t.Errorf("stopped: %v", err) }, func() {})
}

// TestResume loads a state while Raft applies the same entries: nothing is visible before the revision that was
// published, no entry is applied twice, and there is no snapshot before Raft has confirmed all of it.
func TestResume(t *testing.T) {
	for _, fromRaft := range []uint64{0, 2, 600, 1000, 1005} {
		log := logOf(t, "t", 1010)
		m := newResuming(t)
		m.Resume(Resume{Revision: 1000})
		sub := m.History.Subscribe([]row.Prefix{{Table: "t"}}, 0)
		for index := uint64(2); index <= fromRaft; index++ {
			l := &raft.Log{}
			require.NoError(t, log.GetLog(index, l))
			m.ApplyBatch([]*raft.Log{l})
			if index < 1000 {
				require.Zero(t, m.State().Revision)
				at, of, below := m.Resuming()
				require.Equal(t, []any{index, uint64(1000), true}, []any{at, of, below})
			}
		}
		require.NoError(t, m.Load(log, always))
		<-m.Resumed()
		at := max(1000, fromRaft)
		require.Equal(t, at, m.State().Revision)
		r, _ := m.State().Get("t", "k")
		require.Equal(t, []byte{byte(at)}, r.Value)
		_, _, err := sub.Next()
		require.Error(t, err, "watches from before begin again")
		_, err = m.Snapshot()
		if fromRaft < 1000 {
			require.ErrorContains(t, err, "no snapshot yet: the state is at revision 1000, and Raft has confirmed")
		} else {
			require.NoError(t, err)
		}
		for index := max(2, fromRaft+1); index <= 1010; index++ {
			responses := m.ApplyBatch([]*raft.Log{writing(t, "t", index)})
			if index <= 1000 {
				require.Equal(t, []any{errAppliedBefore}, responses)
			} else {
				require.Equal(t, []any{[]Outcome{{Applied: true, Revision: index}}}, responses)
			}
			require.Equal(t, max(at, index), m.State().Revision)
		}
		_, err = m.Snapshot()
		require.NoError(t, err)
	}
}

// TestLoadNeedsTheWholeLog names the entry that is missing.
func TestLoadNeedsTheWholeLog(t *testing.T) {
	m := newResuming(t)
	m.Resume(Resume{Revision: 12})
	require.EqualError(t, m.Load(logOf(t, "t", 10), always),
		"read entry 11 of the log, which this member had applied before: log not found")
	require.Zero(t, m.State().Revision)
}

// TestRecordsBeforePublishing checks the order, and which tables are recorded at once.
func TestRecordsBeforePublishing(t *testing.T) {
	type record struct {
		revision uint64
		now      bool
	}
	var records []record
	var failing error
	var stopped error
	m := New(func(err error) { stopped = err }, func() {})
	m.Resume(Resume{
		Record: func(revision uint64, now bool) error {
			require.Less(t, m.State().Revision, revision, "it is published already")
			records = append(records, record{revision, now})
			return failing
		},
		RecordsNow: func(table string) bool { return table == "bundles" },
	})
	m.ApplyBatch([]*raft.Log{writing(t, "instances", 2)})
	m.ApplyBatch([]*raft.Log{writing(t, "instances", 3), writing(t, "bundles", 4), writing(t, "instances", 5)})
	m.ApplyBatch([]*raft.Log{{Index: 6, Term: 1, Type: raft.LogConfiguration}})
	require.Equal(t, []record{{2, false}, {5, true}, {6, false}}, records)
	require.Equal(t, uint64(6), m.State().Revision)

	failing = errors.New("no space left on device")
	m.ApplyBatch([]*raft.Log{writing(t, "bundles", 7)})
	require.Equal(t, uint64(6), m.State().Revision)
	require.EqualError(t, stopped, "member stopped: no space left on device")
}
