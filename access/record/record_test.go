package record

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var (
	noon  = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	notes = raftstore.NewTable[*statev1.Grant]("notes")
)

func newCall(s *raftstore.Store, object string) *Call {
	c := NewCall(s, func() time.Time { return noon })
	c.Describe(Description{Caller: "admin socket", Action: "NoteService/Put", Object: object, Call: "CALL"})
	return c
}

func put(ctx context.Context, t *testing.T, s *raftstore.Store, key string) raftstore.Revision {
	t.Helper()
	revision, err := s.Update(ctx, func(tx *raftstore.Tx) error { return notes.Put(tx, key, &statev1.Grant{}) })
	require.NoError(t, err)
	return revision
}

// change makes one recorded change.
func change(t *testing.T, s *raftstore.Store, object string) raftstore.Revision {
	t.Helper()
	c := newCall(s, object)
	revision := put(c.Context(t.Context()), t, s, object)
	require.NoError(t, c.End(t.Context()))
	return revision
}

func stored(t *testing.T, s *raftstore.Store) []Change {
	t.Helper()
	all, err := MadeOn(s.View(), s.MemberID())
	require.NoError(t, err)
	return all
}

func TestAChangeAndItsRowAreOneTransaction(t *testing.T) {
	s := raftstoretest.New(t)
	revision := change(t, s, "web")
	rows := stored(t, s)
	require.Len(t, rows, 1)
	require.Equal(t, revision, rows[0].Revision)
	require.Equal(t, uint64(1), rows[0].Number)
	require.Equal(t, "web", rows[0].GetObject())

	failing := newCall(s, "failing")
	_, err := s.Update(failing.Context(t.Context()), func(tx *raftstore.Tx) error {
		return errors.Join(notes.Put(tx, "failing", &statev1.Grant{}), errors.New("refused"))
	})
	require.EqualError(t, err, "refused")

	idle := newCall(s, "idle") // it changes nothing, and so does its record
	_, err = s.Update(idle.Context(t.Context()), func(tx *raftstore.Tx) error {
		_, _, err := notes.Get(tx, "web")
		return err
	})
	require.NoError(t, err)
	require.NoError(t, idle.End(t.Context()))
	require.Len(t, stored(t, s), 1)

	forwarded := newCall(s, "forwarded") // the leader made the change, in no transaction of this context
	require.NoError(t, forwarded.End(t.Context()))
	require.Len(t, stored(t, s), 2)

	unknown := NewCall(s, time.Now)
	_, err = s.Update(unknown.Context(t.Context()), func(tx *raftstore.Tx) error {
		return notes.Put(tx, "unknown", &statev1.Grant{})
	})
	require.ErrorContains(t, err, "before the guard knew what it was")

	var none *Call // a call that is not administrative
	put(none.Context(t.Context()), t, s, "plain")
	require.NoError(t, none.End(t.Context()))
	require.Len(t, stored(t, s), 2)
}

func TestTheRecordIsBounded(t *testing.T) {
	s := raftstoretest.New(t)
	large := strings.Repeat("é", maxTextBytes)
	row := func() *statev1.AdministrativeChange {
		return newCall(s, large).row(Description{Caller: large, Action: large, Object: large, Call: large})
	}
	one := proto.Size(row())
	require.Less(t, one, 4*maxTextBytes+256)
	const appended = 3 * maxBytes / (2 * 4 * maxTextBytes)
	for range appended {
		_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error { return appendChange(tx, row()) })
		require.NoError(t, err)
	}
	var sum, rows int
	for r, err := range changes.All(s.View(), "") {
		require.NoError(t, err)
		sum += proto.Size(r.Value)
		rows++
	}
	require.LessOrEqual(t, sum, maxBytes)
	require.Greater(t, sum, maxBytes-2*one)
	require.LessOrEqual(t, rows, maxChanges)
}

func TestAHeadOfAnyContentCostsABoundedAmount(t *testing.T) {
	s := raftstoretest.New(t)
	for _, h := range []*statev1.AdministrativeRecord{
		{Next: 1 << 62, Oldest: 1, Bytes: 1 << 62}, {Next: 3, Oldest: 1 << 40}, {Bytes: ^uint64(0)},
	} {
		_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
			change := &statev1.AdministrativeChange{Member: s.MemberID()}
			return errors.Join(head.Put(tx, headKey, h), appendChange(tx, change))
		})
		require.NoError(t, err)
	}
}

// memoryLog collects what is recorded.
type memoryLog struct {
	lines []string
	fail  error
}

func (l *memoryLog) Record(e audit.Event) error {
	if l.fail != nil {
		return l.fail
	}
	l.lines = append(l.lines, strings.Join([]string{e.Caller, e.Action, e.Object, e.Result, e.Detail}, "|"))
	return nil
}

func (l *memoryLog) take() []string {
	lines := l.lines
	l.lines = nil
	return lines
}

func TestCopying(t *testing.T) {
	s := raftstoretest.New(t)
	log := &memoryLog{}
	c := &Copier{
		Store: s, Log: log, Path: filepath.Join(t.TempDir(), "copied"), Logger: hclog.NewNullLogger(),
	}
	copyNow := func() []string {
		t.Helper()
		_, err := c.copy(s.View(), c.load())
		require.NoError(t, err)
		return log.take()
	}
	line := func(object, number string) string {
		return "admin socket|NoteService/Put|" + object + "|recorded|change " + number +
			", made on member member-1 at 2026-11-22T12:00:00Z"
	}
	require.Empty(t, copyNow())
	change(t, s, "a")
	change(t, s, "b")
	require.Equal(t, []string{line("a", "1"), line("b", "2")}, copyNow())
	require.Empty(t, copyNow(), "each change is copied once")

	early := s.View()
	change(t, s, "c")
	require.Equal(t, []string{line("c", "3")}, copyNow())
	_, err := c.copy(early, c.load())
	require.NoError(t, err)
	require.Empty(t, log.take(), "a member that replays its log sees older states, and they are no gap")

	// Nothing is taken for copied that the audit log does not have.
	change(t, s, "d")
	log.fail = errors.New("no space")
	_, err = c.copy(s.View(), c.load())
	require.EqualError(t, err, "no space")
	log.fail = nil
	require.Equal(t, []string{line("d", "4")}, copyNow())

	// Rows that are gone are named: in the middle, at the end, and when the record went back.
	missing := "record of administrative changes|copy|%|missing|" + gone
	remove := func(keys ...uint64) {
		_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
			for _, k := range keys {
				if err := changes.Delete(tx, key(k)); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(t, err)
	}
	change(t, s, "e")
	change(t, s, "f")
	change(t, s, "g")
	remove(5, 6)
	require.Equal(t, []string{strings.Replace(missing, "%", "changes 5 to 6", 1), line("g", "7")}, copyNow())
	change(t, s, "h")
	remove(8)
	require.Equal(t, []string{strings.Replace(missing, "%", "change 8", 1)}, copyNow())
	_, err = s.Update(t.Context(), func(tx *raftstore.Tx) error {
		return errors.Join(head.Put(tx, headKey, &statev1.AdministrativeRecord{Next: 6, Oldest: 1}),
			changes.Delete(tx, key(7)))
	})
	require.NoError(t, err)
	lines := copyNow()
	require.Len(t, lines, 1)
	require.Contains(t, lines[0], "|changes 6 to 8|missing|the record went back: ")
	change(t, s, "i")
	require.Equal(t, []string{line("i", "6")}, copyNow())

	require.NoError(t, os.WriteFile(c.Path, []byte("{"), 0o600))
	lines = copyNow() // the whole record again, with the gap that it has now
	require.Equal(t, line("a", "1"), lines[0])
	require.Equal(t, line("i", "6"), lines[len(lines)-1])
}

func TestCopyingFollows(t *testing.T) {
	s := raftstoretest.New(t)
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Config{Path: path, Member: "eu-1"})
	require.NoError(t, err)
	defer log.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	c := &Copier{Store: s, Log: log, Path: path + ".copied", Logger: hclog.NewNullLogger()}
	go func() { done <- c.Run(ctx) }()
	tail := log.Tail(0, true, nil)
	defer tail.Close()
	revision := change(t, s, "web")
	got, err := tail.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, audit.ResultRecorded, got.Result)
	require.Equal(t, uint64(revision), got.Revision)
	require.Equal(t, "CALL", got.Call)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

// A restore puts older rows into use; the record continues, so that who restores a snapshot does not erase what was
// done since.
func TestTheRecordSurvivesARestore(t *testing.T) {
	s := raftstoretest.New(t)
	Register(s)
	change(t, s, "before")
	var snapshot strings.Builder
	_, err := s.Snapshots().Save(t.Context(), &snapshot)
	require.NoError(t, err)
	change(t, s, "since")
	_, err = s.Snapshots().Restore(t.Context(), strings.NewReader(snapshot.String()))
	require.NoError(t, err)
	_, found, err := notes.Get(s.View(), "since")
	require.NoError(t, err)
	require.False(t, found)
	change(t, s, "after")
	var objects []string
	for _, c := range stored(t, s) {
		objects = append(objects, c.GetObject())
	}
	require.Equal(t, []string{"before", "since", "after"}, objects)
}

// A bit that flips in the position, or its end that is lost, hides no change from the audit log.
func TestDamagedPosition(t *testing.T) {
	at := position{Number: 17, Revision: 4242}
	file, err := at.file()
	require.NoError(t, err)
	read, err := parsePosition(file)
	require.NoError(t, err)
	require.Equal(t, at, read)
	read, err = parsePosition([]byte(`{"number":17,"revision":4242}`))
	require.NoError(t, err, "as earlier versions wrote it")
	require.Equal(t, at, read)
	for i := range file {
		for bit := range 8 {
			damaged := bytes.Clone(file)
			damaged[i] ^= 1 << bit
			if read, err := parsePosition(damaged); err == nil {
				require.Equal(t, at, read, "bit %d of byte %d", bit, i)
			}
		}
		_, err := parsePosition(file[:i])
		require.Error(t, err, "cut off after %d bytes", i)
	}
	_, err = parsePosition([]byte(strings.Replace(string(file), "17", "19", 1)))
	require.EqualError(t, err, "its checksum does not match")
}
