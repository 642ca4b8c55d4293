package machine

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/machine/machinetest"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// TestApplyTranscripts runs testdata/apply/*.txt: commands and their outcomes. The lines are
//
//	entry INDEX                          begins a log entry
//	MEMBER/INCARNATION/COUNTER WORDS…    a command of it, whose words are settled=N, base=N, read=KEY@REV,
//	                                     list=PREFIX, put=KEY:VALUE and del=KEY
//	=> OUTCOME                           what the command above led to: applied@REV, conflict@REV or Forgotten
//	state                                followed by "=> " and all rows, as KEY:VALUE@REV
//	revision PREFIX => REV               the revision of a prefix
//
// where all rows are of table "t".
func TestApplyTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/apply/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { runTranscript(t, file) })
	}
}

type transcript struct {
	fsm     *Machine
	index   uint64
	entry   *statev1.Entry
	pending []string // the expected outcomes
	lines   []int
}

func runTranscript(t *testing.T, file string) {
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	tr := &transcript{fsm: New(func(err error) { t.Errorf("stopped: %v", err) }, func() {})}
	scanner := bufio.NewScanner(f)
	for number := 1; scanner.Scan(); number++ {
		line := strings.TrimSpace(scanner.Text())
		where := fmt.Sprintf("%s:%d", file, number)
		switch word, rest, _ := strings.Cut(line, " "); {
		case line == "" || strings.HasPrefix(line, "#"):
		case word == "entry":
			tr.apply(t, file)
			tr.index = machinetest.Number(t, where, rest)
			tr.entry = &statev1.Entry{Version: 1}
		case word == "=>" && tr.entry != nil:
			tr.pending = append(tr.pending, rest)
			tr.lines = append(tr.lines, number)
		case word == "state":
			tr.apply(t, file)
			_, want, _ := strings.Cut(rest, "=> ")
			require.Equal(t, want, tr.rows(), where)
		case word == "revision":
			tr.apply(t, file)
			prefix, want, _ := strings.Cut(rest, " => ")
			require.Equal(
				t,
				row.Revision(machinetest.Number(t, where, want)),
				tr.fsm.State().PrefixRevision("t", strings.Trim(prefix, `"`)),
				where,
			)
		default:
			tr.entry.Commands = append(tr.entry.Commands, machinetest.Command(t, where, line))
		}
	}
	require.NoError(t, scanner.Err())
	tr.apply(t, file)
}

// apply applies the entry at hand.
func (tr *transcript) apply(t *testing.T, file string) {
	if tr.entry == nil {
		return
	}
	data, err := proto.Marshal(tr.entry)
	require.NoError(t, err)
	outcomes := tr.fsm.Apply(&raft.Log{Index: tr.index, Term: 1, Type: raft.LogCommand, Data: data}).([]Outcome)
	require.Len(t, outcomes, len(tr.pending), "%s: an outcome a command", file)
	for i, o := range outcomes {
		got := fmt.Sprintf("conflict@%d", o.Revision)
		switch {
		case o.Applied:
			got = fmt.Sprintf("applied@%d", o.Revision)
		case o.Revision == 0:
			got = "forgotten"
		}
		require.Equal(t, tr.pending[i], got, "%s:%d", file, tr.lines[i])
	}
	tr.entry, tr.pending, tr.lines = nil, nil, nil
}

func (tr *transcript) rows() string {
	var rows []string
	for e := range tr.fsm.State().Below("t", "") {
		rows = append(rows, fmt.Sprintf("%s:%s@%d", e.Key, e.Value, e.Revision))
	}
	sort.Strings(rows)
	return strings.Join(rows, " ")
}

func TestConditions(t *testing.T) {
	tr := &transcript{fsm: New(func(err error) { t.Error(err) }, func() {})}
	at := func(index uint64, line string) {
		tr.entry = &statev1.Entry{Version: 1, Commands: []*statev1.Command{machinetest.Command(t, "setup", line)}}
		tr.index, tr.pending, tr.lines = index, []string{fmt.Sprintf("applied@%d", index)}, []int{0}
		tr.apply(t, "setup")
	}
	at(5, "m/1/1 put=a/1:x put=a/2:x put=b/1:x")
	at(7, "m/1/2 put=a/2:y")
	at(9, "m/1/3 del=b/1")
	for _, c := range []struct {
		name, conditions string
		fails            string // what fails; "": nothing
	}{
		{"nothing read", "base=0", ""},
		{"row as it was", "read=a/1@5", ""},
		{"row written since", "read=a/2@5", "a/2"},
		{"row at its new revision", "read=a/2@7", ""},
		{"row deleted since", "read=b/1@5", "b/1"},
		{"absent, and it is", "read=b/1@0", ""},
		{"absent, and never was there", "read=z@0", ""},
		{"absent, but it is there", "read=a/1@0", "a/1"},
		{"a revision that never was", "read=a/1@6", "a/1"},
		{"prefix unchanged", "base=7 list=a/", ""},
		{"prefix with a row written since", "base=6 list=a/", "a/"},
		{"prefix with a row deleted since", "base=8 list=b/", "b/"},
		{"prefix emptied before", "base=9 list=b/", ""},
		{"prefix below which nothing ever was", "base=0 list=c/", ""},
		{"prefix that is a whole key", "base=6 list=a/1", ""},
		{"whole table", `base=8 list=""`, ""},
		{"several, the last fails", "base=9 read=a/1@5 list=a/ read=a/2@6", "a/2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := tr.fsm.State()
			tx := machinetest.Command(t, c.name, "m/1/9 "+c.conditions).GetTransaction()
			got := s.Failed(tx)
			if c.name == "whole table" {
				require.NotNil(t, got)
				return
			}
			if c.fails == "" {
				require.Nil(t, got)
				return
			}
			require.Equal(t, &row.Prefix{Table: "t", Key: c.fails}, got)
		})
	}
}

func TestForgottenDeletionsRaiseTheFloor(t *testing.T) {
	db, s := newState()
	index := uint64(0)
	step := func(do func(b *builder)) {
		b := s.build(db)
		index++
		b.entry(index, 1, &statev1.Entry{})
		do(b)
		s, _ = b.publish(db)
	}
	const table = "t"
	step(func(b *builder) {
		for i := range maxTombstones + 10 {
			b.put(&Row{Table: table, Key: fmt.Sprintf("k/%06d", i), Value: []byte{}, Revision: index})
		}
		b.put(&Row{Table: table, Key: "stays", Value: []byte{}, Revision: index})
	})
	require.Equal(t, row.Revision(1), s.PrefixRevision(table, "stays"))
	for i := range maxTombstones + 10 {
		step(func(b *builder) { b.delete(table, fmt.Sprintf("k/%06d", i)) })
	}
	require.Equal(t, maxTombstones, s.tombstones)
	require.Equal(t, map[string]uint64{table: 11}, s.floors, "ten deletions are forgotten, of revisions 2 to 11")
	require.Equal(t, row.Revision(11), s.PrefixRevision(table, "stays"), "at least that of its last change")
	require.Equal(t, row.Revision(index), s.PrefixRevision(table, "k/"))
	require.Equal(t, row.Revision(0), s.PrefixRevision("another", ""))
	require.False(t, s.ChangedSince(table, "stays", 11))
	require.True(t, s.ChangedSince(table, "k/", index-1))
}

func TestUnknownCommandVersionStops(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{
			"newer", "\x08\x63",
			"member stopped: log entry 3 has command version 99, and this build applies 1 to 4: run the version " +
				"that the other members run",
		},
		{
			"none", "",
			"member stopped: log entry 3 has command version 0, and this build applies 1 to 4: run the version " +
				"that the other members run",
		},
		{"damaged", "\xff", "member stopped: log entry 3 does not decode, which means that the log is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stopped []error
			f := New(func(err error) { stopped = append(stopped, err) }, func() {})
			good, err := proto.Marshal(
				&statev1.Entry{Version: 1, Commands: []*statev1.Command{machinetest.Command(t, "", "m/1/1 put=a:b")}},
			)
			require.NoError(t, err)
			responses := f.ApplyBatch([]*raft.Log{
				{Index: 2, Type: raft.LogCommand, Data: good},
				{Index: 3, Type: raft.LogCommand, Data: []byte(c.data)},
				{Index: 4, Type: raft.LogCommand, Data: good},
			})
			require.Equal(t, []Outcome{{Applied: true, Revision: 2}}, responses[0])
			require.Len(t, stopped, 1, "once")
			require.ErrorContains(t, stopped[0], c.want)
			require.Equal(t, uint64(2), f.State().Revision, "nothing after it is applied")
			_, err = f.Snapshot()
			require.ErrorIs(t, err, stopped[0])
		})
	}
}
