package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A full disk makes Record return an error. The log continues once the disk has room again.
func TestLogThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(Config{Path: path, Member: "eu-1"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	require.NoError(t, l.Record(Event{Action: "before", Result: ResultDone}))
	writable := l.file
	l.file, err = os.Open(path) // read only: every write fails
	require.NoError(t, err)
	err = l.Record(Event{Action: "lost", Result: ResultBegun, Durable: true})
	require.ErrorContains(t, err, "write the audit log "+path)
	require.NoError(t, l.file.Close())
	l.file = writable
	require.NoError(t, l.Record(Event{Action: "after", Result: ResultDone, Durable: true}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(b), "lost")
	require.Len(t, l.ring.events, 2, "what is not in the file is not shown either")
}

// Lines that are written together are together in the file: of those that a full disk cut off, each is refused, and
// none of those that it took.
func TestLinesThatShareAWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(Config{Path: path, Member: "eu-1"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	const writers = 50
	l.mu.Lock() // as during a write
	results := make(chan error, writers)
	for i := range writers {
		go func() {
			results <- l.Record(Event{Action: fmt.Sprintf("write %d", i), Result: ResultDone, Durable: i%10 == 0})
		}()
	}
	require.Eventually(t, func() bool {
		l.queueMu.Lock()
		defer l.queueMu.Unlock()
		return len(l.queue) == writers
	}, time.Minute, time.Millisecond)
	l.mu.Unlock()
	for range writers {
		require.NoError(t, <-results)
	}
	require.Equal(t, uint64(writers), l.written)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, writers, bytes.Count(b, []byte{'\n'}))

	// A pipe that accepts only a part of a write behaves like a disk that fills up.
	r, w, err := os.Pipe()
	require.NoError(t, err)
	file := l.file
	var lines []*queuedLine
	for i := range 40 {
		q := &queuedLine{event: Recorded{Event: Event{Action: fmt.Sprint(i), Detail: strings.Repeat("x", 8000)}}}
		q.bytes, err = q.event.line()
		require.NoError(t, err)
		lines = append(lines, q)
	}
	first := make([]byte, len(lines[0].bytes))
	ended := make(chan error, 1)
	go func() { // ends the write once one line has been written; the pipe does not hold them all
		_, err := io.ReadFull(r, first)
		ended <- errors.Join(err, w.SetWriteDeadline(time.Now()))
	}()
	l.mu.Lock()
	l.file, l.queue = w, lines
	l.flush()
	torn := l.torn
	l.file = file
	l.mu.Unlock()
	require.NoError(t, <-ended)
	require.True(t, torn)
	require.NoError(t, w.Close())
	piped, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	piped = append(first, piped...)
	whole := bytes.Count(piped, []byte{'\n'})
	require.Positive(t, whole)
	require.Less(t, whole, len(lines))
	for i, q := range lines {
		require.Equal(t, i >= whole, q.err != nil, "line %d", i)
	}
	require.NoError(t, l.Record(Event{Action: "after", Result: ResultDone}))
	require.False(t, l.torn)
}
