package audit

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/clocktest"
)

func TestHealth(t *testing.T) {
	const hangs = "the disk of the audit log hangs or is far too slow: "
	now := time.Unix(1000, 0)
	var h health
	require.NoError(t, h.err(now))
	wrote := h.begin(writing, now)
	synced := h.begin(syncing, now.Add(500*time.Millisecond))
	require.NoError(t, h.err(now.Add(hangsAfter)))
	require.EqualError(t, h.err(now.Add(1200*time.Millisecond)), hangs+"a write has not returned for 1.2s")
	wrote(nil)
	require.NoError(t, h.err(now.Add(1500*time.Millisecond)))
	require.EqualError(t, h.err(now.Add(2*time.Second)), hangs+"an fsync has not returned for 1.5s")
	synced(syscall.EIO)
	require.ErrorIs(t, h.err(now.Add(2*time.Second)), syscall.EIO)
	h.begin(writing, now)(nil)
	require.NoError(t, h.err(now.Add(2*time.Second)))
}

// A write that does not return keeps its lock, and Err answers all the same.
func TestErrWaitsForNoDisk(t *testing.T) {
	l, err := Open(Config{Path: filepath.Join(t.TempDir(), "audit.log"), Member: "eu-1"})
	require.NoError(t, err)
	l.syncMu.Lock()
	l.mu.Lock()
	end := l.health.begin(writing, time.Now().Add(-time.Minute))
	require.ErrorContains(t, l.Err(), "hangs or is far too slow: a write has not returned for 1m0s")
	end(nil)
	l.mu.Unlock()
	l.syncMu.Unlock()
	require.NoError(t, l.Err())
	require.NoError(t, l.Close())
}

// A log that could not be written is retried without a new event, and has a line where others may be missing.
func TestResume(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		l, err := Open(Config{Path: filepath.Join(t.TempDir(), "audit.log"), Member: "eu-1"})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		<-time.After(time.Minute)
		require.Zero(t, l.written, "a log that can be written gets no line")
		l.health.begin(syncing, time.Now())(errors.New("no space left on device"))
		require.EqualError(t, l.Err(), "no space left on device")
		<-time.After(resumeEvery + time.Millisecond)
		require.NoError(t, l.Err())
		last := l.ring.last(1, nil)[0]
		require.Equal(t, "resume audit log", last.Action)
		require.Equal(t, "member eu-1", last.Caller)
		require.Equal(t, "lines before this one could not be written: no space left on device", last.Detail)
		<-time.After(time.Minute)
		require.EqualValues(t, 1, l.written)
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, l.Close())
	})
}
