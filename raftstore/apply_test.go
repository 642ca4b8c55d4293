package raftstore

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// TestApplyTranscripts runs testdata/apply/*.txt: commands and what the state machine makes of them. The lines are
//
//	entry INDEX                          begins a log entry
//	MEMBER/INCARNATION/COUNTER WORDS…    a command of it, whose words are settled=N, base=N, read=KEY@REV,
//	                                     list=PREFIX, put=KEY:VALUE and del=KEY
//	=> OUTCOME                           what the command above led to: applied@REV, conflict@REV or forgotten
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
	fsm     *fsm
	index   uint64
	entry   *statev1.Entry
	pending []string // the expected outcomes
	lines   []int
}

func runTranscript(t *testing.T, file string) {
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	tr := &transcript{fsm: newFSM(func(err error) { t.Errorf("stopped: %v", err) })}
	scanner := bufio.NewScanner(f)
	for number := 1; scanner.Scan(); number++ {
		line := strings.TrimSpace(scanner.Text())
		where := fmt.Sprintf("%s:%d", file, number)
		switch word, rest, _ := strings.Cut(line, " "); {
		case line == "" || strings.HasPrefix(line, "#"):
		case word == "entry":
			tr.apply(t, file)
			tr.index = parseNumber(t, where, rest)
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
			require.Equal(t, Revision(parseNumber(t, where, want)), tr.fsm.state().prefixRevision("t", strings.Trim(prefix, `"`)), where)
		default:
			tr.entry.Commands = append(tr.entry.Commands, parseCommand(t, where, line))
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
	outcomes := tr.fsm.Apply(&raft.Log{Index: tr.index, Term: 1, Type: raft.LogCommand, Data: data}).([]outcome)
	require.Len(t, outcomes, len(tr.pending), "%s: an outcome a command", file)
	for i, o := range outcomes {
		got := fmt.Sprintf("conflict@%d", o.revision)
		switch {
		case o.applied:
			got = fmt.Sprintf("applied@%d", o.revision)
		case o.revision == 0:
			got = "forgotten"
		}
		require.Equal(t, tr.pending[i], got, "%s:%d", file, tr.lines[i])
	}
	tr.entry, tr.pending, tr.lines = nil, nil, nil
}

func (tr *transcript) rows() string {
	var rows []string
	for e := range tr.fsm.state().contents().below(rowsTable, "t", "") {
		rows = append(rows, fmt.Sprintf("%s:%s@%d", e.key, e.value, e.revision))
	}
	sort.Strings(rows)
	return strings.Join(rows, " ")
}

func parseCommand(t *testing.T, where, line string) *statev1.Command {
	words := strings.Fields(line)
	id := strings.Split(words[0], "/")
	require.Len(t, id, 3, where)
	tx := &statev1.Transaction{}
	c := &statev1.Command{
		Id:   &statev1.CommandID{Member: id[0], Incarnation: parseNumber(t, where, id[1]), Counter: parseNumber(t, where, id[2])},
		Kind: &statev1.Command_Transaction{Transaction: tx},
	}
	for _, word := range words[1:] {
		verb, arg, ok := strings.Cut(word, "=")
		require.True(t, ok, where)
		switch verb {
		case "settled":
			c.Settled = parseNumber(t, where, arg)
		case "base":
			tx.Base = parseNumber(t, where, arg)
		case "read":
			key, revision, _ := strings.Cut(arg, "@")
			tx.Rows = append(tx.Rows, &statev1.RowCondition{Table: "t", Key: key, Revision: parseNumber(t, where, revision)})
		case "list":
			tx.Prefixes = append(tx.Prefixes, &statev1.PrefixCondition{Table: "t", Prefix: strings.Trim(arg, `"`)})
		case "put":
			key, value, _ := strings.Cut(arg, ":")
			tx.Changes = append(tx.Changes, &statev1.RowChange{Table: "t", Key: key, Value: []byte(value)})
		case "del":
			tx.Changes = append(tx.Changes, &statev1.RowChange{Table: "t", Key: arg})
		default:
			t.Fatalf("%s: unknown word %q", where, word)
		}
	}
	return c
}

func parseNumber(t *testing.T, where, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err, where)
	return n
}

func TestConditions(t *testing.T) {
	tr := &transcript{fsm: newFSM(func(err error) { t.Error(err) })}
	at := func(index uint64, line string) {
		tr.entry = &statev1.Entry{Version: 1, Commands: []*statev1.Command{parseCommand(t, "setup", line)}}
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
			s := tr.fsm.state()
			tx := parseCommand(t, c.name, "m/1/9 "+c.conditions).GetTransaction()
			got := failed(s.contents(), s.floors, tx)
			if c.name == "whole table" {
				require.NotNil(t, got)
				return
			}
			if c.fails == "" {
				require.Nil(t, got)
				return
			}
			require.Equal(t, &Prefix{"t", c.fails}, got)
		})
	}
}

func TestForgottenDeletionsRaiseTheFloor(t *testing.T) {
	db, s := newState()
	index := uint64(0)
	step := func(do func(a *applying)) {
		a := s.apply(db)
		index++
		a.entry(index, 1, &statev1.Entry{})
		do(a)
		s, _ = a.publish(db)
	}
	const table = "t"
	step(func(a *applying) {
		for i := range maxTombstones + 10 {
			a.put(&entry{table: table, key: fmt.Sprintf("k/%06d", i), value: []byte{}, revision: index})
		}
		a.put(&entry{table: table, key: "stays", value: []byte{}, revision: index})
	})
	require.Equal(t, Revision(1), s.prefixRevision(table, "stays"))
	for i := range maxTombstones + 10 {
		step(func(a *applying) { a.delete(table, fmt.Sprintf("k/%06d", i)) })
	}
	require.Equal(t, maxTombstones, s.tombstones)
	require.Equal(t, map[string]uint64{table: 11}, s.floors, "ten deletions are forgotten, of revisions 2 to 11")
	require.Equal(t, Revision(11), s.prefixRevision(table, "stays"), "at least that of its last change")
	require.Equal(t, Revision(index), s.prefixRevision(table, "k/"))
	require.Equal(t, Revision(0), s.prefixRevision("another", ""))
	require.False(t, s.contents().changedSince(table, "stays", s.floors, 11))
	require.True(t, s.contents().changedSince(table, "k/", s.floors, index-1))
}

func TestUnknownCommandVersionStops(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"newer", "\x08\x63", "this member stops: log entry 3: command version 99, and this build knows 1 to 1: run the version that the other members run"},
		{"none", "", "this member stops: log entry 3: command version 0, and this build knows 1 to 1: run the version that the other members run"},
		{"damaged", "\xff", "this member stops: log entry 3: does not decode, which means that the log is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stopped []error
			f := newFSM(func(err error) { stopped = append(stopped, err) })
			good, err := proto.Marshal(&statev1.Entry{Version: 1, Commands: []*statev1.Command{parseCommand(t, "", "m/1/1 put=a:b")}})
			require.NoError(t, err)
			responses := f.ApplyBatch([]*raft.Log{
				{Index: 2, Type: raft.LogCommand, Data: good},
				{Index: 3, Type: raft.LogCommand, Data: []byte(c.data)},
				{Index: 4, Type: raft.LogCommand, Data: good},
			})
			require.Equal(t, []outcome{{applied: true, revision: 2}}, responses[0])
			require.Len(t, stopped, 1, "once")
			require.ErrorContains(t, stopped[0], c.want)
			require.Equal(t, uint64(2), f.state().revision, "nothing after it is applied")
			_, err = f.Snapshot()
			require.ErrorIs(t, err, stopped[0])
		})
	}
}
