package audit_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/audit"
)

var noon = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func openLog(t *testing.T, path string) *audit.Log {
	t.Helper()
	l, err := audit.Open(audit.Config{Path: path, Member: "eu-1", Now: func() time.Time { return noon }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func TestLogLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := openLog(t, path)
	for _, e := range []audit.Event{
		{
			Caller: "spiffe://eu.test/ci", Action: "DomainService/CreateDomain", Object: "pay.test",
			Result: audit.ResultBegun, Call: "K7", Durable: true,
		},
		{
			Caller: "spiffe://eu.test/ci", Action: "DomainService/CreateDomain", Object: "pay.test",
			Result: audit.ResultDone, Revision: 12, Call: "K7", Durable: true,
		},
		{
			Caller: "federation", Action: "refuse bundle", Object: "us.test", Result: "rollback",
			Detail: `sequence 3 < "4"`,
		},
	} {
		require.NoError(t, l.Record(e))
	}
	require.Equal(t,
		`{"time":"2026-08-01T12:00:00Z","member":"eu-1","caller":"spiffe://eu.test/ci",`+
			`"action":"DomainService/CreateDomain","object":"pay.test","result":"begun","call":"K7"}`+"\n"+
			`{"time":"2026-08-01T12:00:00Z","member":"eu-1","caller":"spiffe://eu.test/ci",`+
			`"action":"DomainService/CreateDomain","object":"pay.test","result":"done","revision":12,"call":"K7"}`+"\n"+
			`{"time":"2026-08-01T12:00:00Z","member":"eu-1","caller":"federation",`+
			`"action":"refuse bundle","object":"us.test","result":"rollback","detail":"sequence 3 \u003c \"4\""}`+"\n",
		unchained(contents(t, path)))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestLogRestrictsItsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Chmod(path, 0o644))
	openLog(t, path)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestLogIsARegularFile(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	require.NoError(t, os.Symlink(target, filepath.Join(dir, "link")))
	for _, path := range []string{filepath.Join(dir, "link"), dir, "/dev/null"} {
		_, err := audit.Open(audit.Config{Path: path, Member: "eu-1"})
		require.ErrorContains(t, err, "open the audit log "+path)
		require.ErrorContains(t, err, "without it nothing can be signed or changed")
	}
	require.NoFileExists(t, target)
}

func TestLogInjection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := openLog(t, path)
	evil := "a\n{\"caller\":\"root\"}\r\x1b[2J\u2028\u202e\u009b31m\xff\x00b"
	require.NoError(t, l.Record(audit.Event{Caller: evil, Action: evil, Object: evil, Result: evil, Detail: evil,
		Call: evil}))
	got := contents(t, path)
	require.Equal(t, 1, strings.Count(got, "\n"))
	for _, r := range strings.TrimSuffix(got, "\n") {
		require.True(t, unicode.IsPrint(r), "%q", r)
	}
	var line map[string]string
	require.NoError(t, json.Unmarshal([]byte(got), &line))
	require.Equal(t, `a\n{"caller":"root"}\r\x1b[2J\u2028\u202e\u009b31m\xff\x00b`, line["object"])
}

// Every event is recorded as one line of printable text of bounded length, and is equal when it is read again.
func FuzzLogLine(f *testing.F) {
	path := filepath.Join(f.TempDir(), "audit.log")
	f.Add("spiffe://eu.test/ci", "x\ny")
	f.Add(strings.Repeat("é", 1500), strings.Repeat("\x00", 600))
	f.Fuzz(func(t *testing.T, object, detail string) {
		require.NoError(t, os.RemoveAll(path))
		l, err := audit.Open(audit.Config{Path: path, Member: "eu-1"})
		require.NoError(t, err)
		require.NoError(t, l.Record(audit.Event{Action: "a", Result: "r", Object: object, Detail: detail}))
		recorded, err := l.Tail(1, false, nil).Next(context.Background())
		require.NoError(t, err)
		require.NoError(t, l.Close())
		got := contents(t, path)
		if strings.Count(got, "\n") != 1 || !utf8.ValidString(got) || len(got) > 16<<10 {
			t.Fatalf("%d bytes: %q", len(got), got)
		}
		if strings.IndexFunc(strings.TrimSuffix(got, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			t.Fatalf("not printable: %q", got)
		}
		l, err = audit.Open(audit.Config{Path: path, Member: "eu-1"})
		require.NoError(t, err)
		again, err := l.Tail(1, false, nil).Next(context.Background())
		require.NoError(t, err)
		require.Equal(t, recorded.Event, again.Event)
		require.NoError(t, l.Close())
	})
}

func TestLogContinuesAfterATornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	require.NoError(t, os.WriteFile(path, []byte(`{"action":"whole","result":"done"}`+"\n"+`{"action":"torn`), 0o600))
	l := openLog(t, path)
	require.NoError(t, l.Record(audit.Event{Action: "next", Result: audit.ResultDone}))
	lines := strings.Split(contents(t, path), "\n")
	require.Len(t, lines, 4)
	require.Equal(t, `{"action":"torn`, lines[1])
	require.Contains(t, lines[2], `"action":"next"`)
	require.Equal(t, []string{"whole", "next"}, actions(t, l.Tail(10, false, nil)))
}

func TestLogClosed(t *testing.T) {
	l, err := audit.Open(audit.Config{Path: filepath.Join(t.TempDir(), "audit.log"), Member: "eu-1"})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	err = l.Record(audit.Event{Action: "a", Result: audit.ResultBegun})
	require.ErrorIs(t, err, audit.ErrClosed)
}

func TestLogReopen(t *testing.T) {
	dir := t.TempDir()
	path, moved := filepath.Join(dir, "audit.log"), filepath.Join(dir, "audit.log.1")
	l := openLog(t, path)
	require.NoError(t, l.Record(audit.Event{Action: "before", Result: audit.ResultDone}))
	require.NoError(t, os.Rename(path, moved))
	require.NoError(t, l.Record(audit.Event{Action: "between", Result: audit.ResultDone}))
	require.NoError(t, l.Reopen())
	require.NoError(t, l.Record(audit.Event{Action: "after", Result: audit.ResultDone, Durable: true}))
	require.Equal(t, 2, strings.Count(contents(t, moved), "\n"))
	require.Equal(t, 1, strings.Count(contents(t, path), "\n"))

	// If Reopen fails, the log continues with its current file.
	require.NoError(t, os.Rename(path, moved))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.ErrorContains(t, l.Reopen(), "open the audit log "+path)
	require.NoError(t, l.Record(audit.Event{Action: "still", Result: audit.ResultDone}))
	require.Equal(t, 2, strings.Count(contents(t, moved), "\n"))
}

func TestLogFromManyGoroutines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := openLog(t, path)
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				e := audit.Event{Action: fmt.Sprintf("%d/%d", w, i), Result: audit.ResultDone, Durable: i%5 == 0}
				if err := l.Record(e); err != nil {
					t.Error(err)
				}
				if i == each/2 && w == 0 {
					if err := l.Reopen(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	seen := make(map[string]bool)
	for s := bufio.NewScanner(f); s.Scan(); {
		var line struct{ Action string }
		require.NoError(t, json.Unmarshal(s.Bytes(), &line))
		seen[line.Action] = true
	}
	require.Len(t, seen, writers*each)
}

// actions returns the actions of a tail up to its end.
func actions(t *testing.T, tail *audit.Tail) []string {
	t.Helper()
	var all []string
	for {
		e, err := tail.Next(t.Context())
		if errors.Is(err, audit.ErrTailEnd) {
			return all
		}
		require.NoError(t, err)
		all = append(all, e.Action)
	}
}

func TestTail(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "audit.log"))
	record := func(i int) {
		require.NoError(t, l.Record(audit.Event{Action: fmt.Sprint(i), Result: audit.ResultDone}))
	}
	for i := range audit.MaxTailLines + 10 {
		record(i)
	}
	require.Equal(t, []string{"1008", "1009"}, actions(t, l.Tail(2, false, nil)))
	require.Empty(t, actions(t, l.Tail(0, false, nil)))
	all := actions(t, l.Tail(1<<20, false, nil))
	require.Len(t, all, audit.MaxTailLines)
	require.Equal(t, "10", all[0])

	follow := l.Tail(1, true, nil)
	t.Cleanup(follow.Close)
	record(1010)
	for _, want := range []string{"1009", "1010"} {
		e, err := follow.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, e.Action)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := follow.Next(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestTailTooSlow(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "audit.log"))
	slow := l.Tail(0, true, nil)
	t.Cleanup(slow.Close)
	const most = 6000
	for range most {
		require.NoError(t, l.Record(audit.Event{Action: "a", Result: audit.ResultDone}))
	}
	got := 0
	for {
		_, err := slow.Next(t.Context())
		if err != nil {
			require.EqualError(t, err, "the reader of the audit log fell too far behind and was dropped: the file on "+
				"the member has every line")
			break
		}
		got++
	}
	require.Less(t, got, most)
	require.NotZero(t, got)
}

func TestTailEndsWithTheLog(t *testing.T) {
	l, err := audit.Open(audit.Config{Path: filepath.Join(t.TempDir(), "audit.log"), Member: "eu-1"})
	require.NoError(t, err)
	follow := l.Tail(0, true, nil)
	t.Cleanup(follow.Close)
	require.NoError(t, l.Close())
	_, err = follow.Next(t.Context())
	require.ErrorIs(t, err, audit.ErrClosed)
}

var link = regexp.MustCompile(`,"previous":"[0-9a-f]{64}"`)

// unchained removes the links between lines.
func unchained(lines string) string { return link.ReplaceAllString(lines, "") }
