package machine

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/snapshot"
)

func TestNextStaging(t *testing.T) {
	at := func(generation string, chunks, attempt, carried uint64) *statev1.Staging {
		return &statev1.Staging{Generation: generation, Chunks: chunks, Attempt: attempt, CarriedChunks: carried}
	}
	chunk := func(generation string, attempt, sequence uint64) *statev1.RestoreChunk {
		return &statev1.RestoreChunk{Generation: generation, Attempt: attempt, Sequence: sequence}
	}
	for name, c := range map[string]struct {
		now   *statev1.Staging
		chunk *statev1.RestoreChunk
		want  *statev1.Staging // nil: refused
	}{
		"begins":                               {nil, chunk("g", 0, 0), at("g", 1, 0, 0)},
		"goes on":                              {at("g", 1, 0, 0), chunk("g", 0, 1), at("g", 2, 0, 0)},
		"sent twice":                           {at("g", 2, 0, 0), chunk("g", 0, 1), nil},
		"leaves one out":                       {at("g", 1, 0, 0), chunk("g", 0, 2), nil},
		"supersedes":                           {at("g", 7, 2, 3), chunk("h", 0, 0), at("h", 1, 0, 0)},
		"was superseded":                       {at("h", 1, 0, 0), chunk("g", 0, 7), nil},
		"was aborted":                          {nil, chunk("g", 0, 7), nil},
		"first carried":                        {at("g", 7, 0, 0), chunk("g", 1, 0), at("g", 7, 1, 1)},
		"more carried":                         {at("g", 7, 1, 1), chunk("g", 1, 1), at("g", 7, 1, 2)},
		"carried twice":                        {at("g", 7, 1, 1), chunk("g", 1, 0), nil},
		"carried anew":                         {at("g", 7, 1, 2), chunk("g", 2, 0), at("g", 7, 2, 1)},
		"carried by an earlier attempt":        {at("g", 7, 2, 1), chunk("g", 1, 2), nil},
		"carried before anything was staged":   {nil, chunk("g", 1, 0), nil},
		"rows of the snapshot after a carried": {at("g", 7, 1, 1), chunk("g", 0, 7), nil},
		"no generation":                        {nil, chunk("", 0, 0), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := nextStaging(c.now, c.chunk)
			require.Equal(t, c.want != nil, ok)
			require.True(t, proto.Equal(c.want, got), "want %v, got %v", c.want, got)
		})
	}
}

// machine drives a state machine without Raft: each command is an entry of its own.
type machine struct {
	t       testing.TB
	fsm     *Machine
	index   uint64
	counter uint64
}

func newMachine(t testing.TB) *machine {
	m := &machine{t: t, fsm: New(func(err error) { t.Errorf("stopped: %v", err) }, func() {})}
	m.entry(&statev1.Entry{Version: 1, ClusterId: "here"})
	return m
}

func (m *machine) entry(e *statev1.Entry) []Outcome {
	m.t.Helper()
	raw, err := proto.Marshal(e)
	require.NoError(m.t, err)
	m.index++
	logs := []*raft.Log{{Index: m.index, Term: 1, Type: raft.LogCommand, Data: raw}}
	outcomes, ok := m.fsm.ApplyBatch(logs)[0].([]Outcome)
	require.True(m.t, ok)
	return outcomes
}

func (m *machine) command(c *statev1.Command) bool {
	m.t.Helper()
	m.counter++
	c.Id = &statev1.CommandID{Member: "m", Incarnation: 1, Counter: m.counter}
	return m.entry(&statev1.Entry{Version: 1, Commands: []*statev1.Command{c}})[0].Applied
}

func (m *machine) transact(tx *statev1.Transaction) bool {
	return m.command(&statev1.Command{Kind: &statev1.Command_Transaction{Transaction: tx}})
}

func (m *machine) put(table, key, value string) {
	m.t.Helper()
	require.True(
		m.t,
		m.transact(&statev1.Transaction{Changes: []*statev1.RowChange{{Table: table, Key: key, Value: []byte(value)}}}),
	)
}

func (m *machine) delete(table, key string) {
	m.t.Helper()
	require.True(m.t, m.transact(&statev1.Transaction{Changes: []*statev1.RowChange{{Table: table, Key: key}}}))
}

func (m *machine) chunk(generation string, attempt, sequence uint64, rows ...*statev1.StagedRow) bool {
	return m.command(&statev1.Command{Kind: &statev1.Command_RestoreChunk{RestoreChunk: &statev1.RestoreChunk{
		Generation: generation, Attempt: attempt, Sequence: sequence, Rows: rows}}})
}

func (m *machine) swap(s *statev1.RestoreSwap) bool {
	return m.command(&statev1.Command{Kind: &statev1.Command_RestoreSwap{RestoreSwap: s}})
}

func (m *machine) abort(generation string) bool {
	abort := &statev1.RestoreAbort{Generation: generation}
	return m.command(&statev1.Command{Kind: &statev1.Command_RestoreAbort{RestoreAbort: abort}})
}

func (m *machine) rows() []string {
	var all []string
	for e := range m.fsm.State().All() {
		all = append(all, fmt.Sprintf("%s/%s=%s@%d", e.Table, e.Key, e.Value, e.Revision))
	}
	return all
}

func staged(table, key, value string) *statev1.StagedRow {
	return &statev1.StagedRow{Table: table, Key: key, Value: []byte(value)}
}

func TestSwap(t *testing.T) {
	m := newMachine(t)
	m.put("domains", "old", "1")
	m.put("domains", "both", "1")
	m.put("members", "eu-1", "1")
	m.put("gone", "x", "1")
	m.delete("gone", "x")
	before := m.fsm.State()

	require.True(t, m.chunk("g", 0, 0, staged("domains", "both", "2"), staged("domains", "new", "2")))
	require.True(t, m.chunk("g", 0, 1, staged("members", "eu-1", "2"), staged("members", "eu-2", "2")))
	require.True(t, m.chunk("g", 1, 0,
		&statev1.StagedRow{Table: "members", Key: "eu-1", Value: []byte("1"), Carried: true},
		&statev1.StagedRow{Table: "members", Key: "eu-2", Carried: true}))
	require.Equal(
		t,
		[]string{"domains/both=1@3", "domains/old=1@2", "members/eu-1=1@4"},
		m.rows(),
		"staged rows are not seen",
	)

	swap := &statev1.RestoreSwap{
		Generation:    "g",
		Chunks:        2,
		Attempt:       1,
		CarriedChunks: 1,
		ClusterId:     "here",
		Base:          before.Revision,
		Tables:        []string{"members"},
	}
	require.True(t, m.swap(swap))
	at := m.index
	require.Equal(t, []string{
		fmt.Sprintf("domains/both=2@%d", at), fmt.Sprintf("domains/new=2@%d", at), fmt.Sprintf("members/eu-1=1@%d", at),
	}, m.rows())

	after := m.fsm.State()
	require.Nil(t, after.Staging)
	require.Zero(t, count(after.Staged())+count(after.Carried()))
	for _, table := range []string{"domains", "members", "gone"} {
		require.EqualValues(t, at, after.PrefixRevision(table, ""), "whatever was listed in %s is no longer so", table)
		require.True(t, after.ChangedSince(table, "", before.Revision))
	}
	require.False(
		t,
		m.transact(
			&statev1.Transaction{
				Base: before.Revision,
				Rows: []*statev1.RowCondition{{Table: "domains", Key: "both", Revision: 3}},
			},
		),
	)
	require.False(
		t,
		m.transact(&statev1.Transaction{Base: before.Revision, Prefixes: []*statev1.PrefixCondition{{Table: "gone"}}}),
	)
	require.False(t, m.swap(swap), "a swap counts once")
}

func TestSwapRefused(t *testing.T) {
	whole := func() *statev1.RestoreSwap {
		return &statev1.RestoreSwap{
			Generation:    "g",
			Chunks:        1,
			Attempt:       1,
			CarriedChunks: 1,
			ClusterId:     "here",
			Tables:        []string{"members"},
		}
	}
	for name, c := range map[string]struct {
		alter func(s *statev1.RestoreSwap)
		since func(m *machine)
		want  bool
	}{
		"whole":                       {want: true},
		"another table changed":       {since: func(m *machine) { m.put("domains", "a", "2") }, want: true},
		"a table looked at changed":   {since: func(m *machine) { m.put("members", "eu-2", "2") }},
		"a row looked at was deleted": {since: func(m *machine) { m.delete("members", "eu-1") }},
		"untouched":                   {alter: func(s *statev1.RestoreSwap) { s.Untouched = true }, want: true},
		"touched": {
			alter: func(s *statev1.RestoreSwap) { s.Untouched = true },
			since: func(m *machine) { m.put("domains", "a", "2") },
		},
		"touched by a deletion": {
			alter: func(s *statev1.RestoreSwap) { s.Untouched = true },
			since: func(m *machine) { m.delete("domains", "a") },
		},
		"chunk missing":                 {alter: func(s *statev1.RestoreSwap) { s.Chunks = 2 }},
		"carried chunk missing":         {alter: func(s *statev1.RestoreSwap) { s.CarriedChunks = 2 }},
		"carried by an earlier attempt": {alter: func(s *statev1.RestoreSwap) { s.Attempt = 2 }},
		"superseded":                    {since: func(m *machine) { require.True(m.t, m.chunk("h", 0, 0)) }},
		"aborted": {since: func(m *machine) {
			require.True(m.t, m.abort("g"))
		}},
		"another was aborted": {since: func(m *machine) {
			require.False(m.t, m.abort("f"))
		}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.put("members", "eu-1", "1")
			m.put("domains", "a", "1")
			swap := whole()
			swap.Base = m.index
			require.True(t, m.chunk("g", 0, 0, staged("domains", "b", "3")))
			require.True(t, m.chunk("g", 1, 0))
			if c.alter != nil {
				c.alter(swap)
			}
			if c.since != nil {
				c.since(m)
			}
			rows := m.rows()
			require.Equal(t, c.want, m.swap(swap))
			if c.want {
				require.Equal(t, []string{fmt.Sprintf("domains/b=3@%d", m.index)}, m.rows())
			} else {
				require.Equal(t, rows, m.rows(), "a refused swap changes nothing")
			}
		})
	}
}

// A member that takes over a state from a snapshot behaves from then on exactly like one that applied the log, whatever
// was done before: rows, deletions, outcomes, restores under way.
func TestStateSurvivesSnapshot(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(t)
		table := rapid.SampledFrom([]string{"a", "b"})
		key := rapid.SampledFrom([]string{"x", "xy", "z"})
		generation := rapid.SampledFrom([]string{"g", "h"})
		small := rapid.Uint64Range(0, 2)
		act := map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				m.put(table.Draw(rt, "table"), key.Draw(rt, "key"), rapid.StringN(0, 3, 3).Draw(rt, "value"))
			},
			"delete": func(rt *rapid.T) { m.delete(table.Draw(rt, "table"), key.Draw(rt, "key")) },
			"chunk": func(rt *rapid.T) {
				carried := rapid.Uint64Range(0, 1).Draw(rt, "attempt")
				m.chunk(
					generation.Draw(rt, "generation"),
					carried,
					small.Draw(rt, "sequence"),
					&statev1.StagedRow{
						Table:   table.Draw(rt, "table"),
						Key:     key.Draw(rt, "key"),
						Value:   []byte("s"),
						Carried: carried > 0,
					},
				)
			},
			"swap": func(rt *rapid.T) {
				now := m.fsm.State().Staging
				m.swap(&statev1.RestoreSwap{Generation: generation.Draw(rt, "generation"), Chunks: now.GetChunks(),
					Attempt: now.GetAttempt(), CarriedChunks: now.GetCarriedChunks(), ClusterId: "there"})
			},
		}
		rt.Repeat(act)

		var saved bytes.Buffer
		require.NoError(t, m.fsm.State().write(&saved))
		other := New(func(err error) { t.Errorf("stopped: %v", err) }, func() {})
		require.NoError(t, other.Restore(nopCloser{bytes.NewReader(saved.Bytes())}))
		requireSameState(t, m.fsm.State(), other.State())

		// They stay the same, whatever is applied to both.
		replay := *m
		for range 5 {
			e := &statev1.Entry{Version: 1, Commands: []*statev1.Command{{
				Id: &statev1.CommandID{
					Member:      "m",
					Incarnation: 1,
					Counter:     rapid.Uint64Range(1, replay.counter+2).Draw(rt, "counter"),
				},
				Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{
					Base: rapid.Uint64Range(0, replay.index).Draw(rt, "base"),
					Prefixes: []*statev1.PrefixCondition{
						{Table: table.Draw(rt, "table"), Prefix: key.Draw(rt, "prefix")},
					},
					Changes: []*statev1.RowChange{
						{Table: table.Draw(rt, "table"), Key: key.Draw(rt, "key"), Value: []byte("n")},
					},
				}},
			}}}
			raw, err := proto.Marshal(e)
			require.NoError(t, err)
			replay.index++
			log := []*raft.Log{{Index: replay.index, Term: 1, Type: raft.LogCommand, Data: raw}}
			require.Equal(t, m.fsm.ApplyBatch(log), other.ApplyBatch(log))
		}
		requireSameState(t, m.fsm.State(), other.State())
	})
}

func requireSameState(t *testing.T, want, got *State) {
	t.Helper()
	for _, memtable := range []string{rowsTable, tombstonesTable, stagedTable, carriedTable} {
		var a, b []Row
		for e := range entries(want.txn, memtable) {
			a = append(a, *e)
		}
		for e := range entries(got.txn, memtable) {
			b = append(b, *e)
		}
		require.Equal(t, a, b, memtable)
	}
	require.Equal(t, want.floors, got.floors)
	require.Equal(t, want.sessions, got.sessions)
	require.Equal(t, want.tombstones, got.tombstones)
	require.True(t, proto.Equal(want.Staging, got.Staging))
	require.Equal(t, []any{want.Revision, want.Term, want.ClusterID}, []any{got.Revision, got.Term, got.ClusterID})
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

// An operator's snapshot holds only rows, and reading it back gives them with their revisions.
func TestWriteRows(t *testing.T) {
	m := newMachine(t)
	m.put("domains", "a", "1")
	m.put("domains", "b", "")
	m.put("members", "eu-1", "1")
	m.delete("domains", "a")
	var out bytes.Buffer
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	info, err := m.fsm.State().WriteRows(&out, now)
	require.NoError(t, err)
	require.Equal(t, []snapshot.TableInfo{{Name: "domains", Rows: 1}, {Name: "members", Rows: 1}}, info.Tables)
	require.Equal(t, "here", info.ClusterID)
	require.Equal(t, now, info.Time)
	inspected, err := snapshot.Inspect(bytes.NewReader(out.Bytes()))
	require.NoError(t, err)
	require.Equal(t, info, inspected)
	s, err := Read(bytes.NewReader(out.Bytes()))
	require.NoError(t, err)
	require.Zero(t, s.tombstones)
	require.Empty(t, s.sessions)
	e, ok := s.Get("domains", "b")
	require.True(t, ok)
	require.NotNil(t, e.Value, "an empty value is a value")
}
