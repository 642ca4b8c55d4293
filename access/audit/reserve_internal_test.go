package audit

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// allocated returns how many bytes a file takes on the disk.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// smallDisk mounts a file system of a size. The test needs the right to mount one.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("this test needs the right to mount a tmpfs (CAP_SYS_ADMIN): %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	return dir
}

// A disk that something else fills up leaves the log its room, and the log has room again once there is some.
func TestReserveOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, "16m")
	path := filepath.Join(dir, "audit.log")
	l, err := Open(Config{Path: path, Member: "eu-1"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Zero(t, info.Size(), "what is reserved is no part of the file")

	filler, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 64<<10))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	event := Event{Action: "sign", Result: ResultDone, Durable: true, Detail: strings.Repeat("x", 500)}
	lines := 0
	for err = l.Record(event); err == nil && l.end < reservedBytes; err = l.Record(event) {
		lines++
	}
	require.Greater(t, lines, 10_000)
	for err == nil {
		err = l.Record(event)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, l.Err(), syscall.ENOSPC)

	require.NoError(t, filler.Close())
	require.NoError(t, os.Remove(filler.Name()))
	require.NoError(t, l.Record(event))
	require.NoError(t, l.Err())
}

// A file that was rotated gives its room up, and the new one has some; a closed log keeps none.
func TestReserveFollowsRotation(t *testing.T) {
	dir := smallDisk(t, "64m")
	path := filepath.Join(dir, "audit.log")
	l, err := Open(Config{Path: path, Member: "eu-1"})
	require.NoError(t, err)
	require.NoError(t, l.Record(Event{Action: "before", Result: ResultDone}))
	require.GreaterOrEqual(t, allocated(t, path), int64(reservedBytes))
	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, l.Reopen())
	require.Less(t, allocated(t, path+".1"), int64(64<<10))
	require.GreaterOrEqual(t, allocated(t, path), int64(reservedBytes))
	require.NoError(t, l.Close())
	require.Less(t, allocated(t, path), int64(64<<10))
}
