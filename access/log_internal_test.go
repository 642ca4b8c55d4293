package access

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A disk that takes no more refuses the line, and what was to be done with it; once it does again, the log goes on.
func TestLogThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := OpenLog(LogConfig{Path: path, Member: "eu-1"})
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
