package raftstore_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/damagetest"
	"github.com/ententehq/entente/raftstore"
)

// openAlone opens the store of a cluster of one member, with its files in a folder.
func openAlone(dir string, fatal func(error)) (*raftstore.Store, error) {
	const quick = 10 * time.Millisecond // there is nobody to wait for
	return raftstore.Open(raftstore.Config{
		MemberID: "m1", Identity: sha256.Sum256([]byte("m1")), Dir: dir, Fatal: fatal,
		Timing: raftstore.Timing{Heartbeat: quick, Election: quick, Lease: quick},
	})
}

// writeFolder writes the files of a member that has two snapshots and a log that begins before them, and returns its
// content.
func writeFolder(t *testing.T, dir string) string {
	t.Helper()
	s, err := openAlone(dir, nil)
	require.NoError(t, err)
	require.NoError(t, s.Bootstrap())
	awaitLeadership(t.Context(), t, s)
	for i := range 60 {
		put(t, s, fmt.Sprintf("k/%d", i%40), fmt.Sprint(i))
		if i == 20 || i == 40 {
			require.NoError(t, raftstore.Snapshot(s))
		}
	}
	remove(t, s, "k/3")
	want := content(t, s.View())
	require.NoError(t, s.Close())
	return fmt.Sprint(want)
}

// TestDamagedMember damages the files of a member, one at a time. The member returns what it had, or is refused in one
// line that names the command that repairs it.
func TestDamagedMember(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m1")
	want := writeFolder(t, dir)
	refused, fellBack := 0, 0
	for seed := range damagetest.Flips(t, 60) {
		copied := filepath.Join(t.TempDir(), "copy")
		damagetest.CopyFolder(t, dir, copied)
		what := damagetest.Damage(t, rand.New(rand.NewPCG(uint64(seed), 3)), copied, nil)
		got, err := readFolder(t, copied)
		if err != nil {
			refused++
			require.ErrorIs(t, err, raftstore.ErrDamaged, "seed %d: %s", seed, what)
			require.NotContains(t, err.Error(), "\n", "seed %d: %s", seed, what)
			require.ErrorContains(t, err, "run 'entente cluster repair m1'", "seed %d: %s", seed, what)
		} else {
			require.Equal(t, want, got, "seed %d: %s", seed, what)
		}
		if _, err := os.Stat(filepath.Join(copied, "snapshots", "snapshot.damaged")); err == nil {
			fellBack++
		}
		require.NoError(t, os.RemoveAll(copied))
	}
	require.NotZero(t, refused)
	require.NotZero(t, fellBack)
	t.Logf("%d refused, %d continued from the older snapshot", refused, fellBack)
}

// readFolder opens the files of a member and returns its content.
func readFolder(t *testing.T, dir string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	s, err := openAlone(dir, func(err error) { cancel(err) })
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Close() }() // of a damaged log, bbolt may return an error
	leading, stop := context.WithCancel(ctx)
	defer stop()
	_ = s.WhileLeading(leading, func(context.Context) { stop() }) // ends with the context
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	return fmt.Sprint(content(t, s.View())), nil
}

// TestOlderSnapshot cuts off snapshots: the newest alone is replaced by the older one, both together are refused.
func TestOlderSnapshot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m1")
	want := writeFolder(t, dir)
	files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.snapshot"))
	require.NoError(t, err)
	require.Len(t, files, 2)
	require.NoError(t, os.Truncate(files[1], 100))
	got, err := readFolder(t, dir)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoFileExists(t, files[1])

	s, err := openAlone(dir, nil)
	require.NoError(t, err)
	awaitLeadership(t.Context(), t, s)
	_, _, err = raftstore.Compact(s)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	files, err = filepath.Glob(filepath.Join(dir, "snapshots", "*.snapshot"))
	require.NoError(t, err)
	for _, file := range files {
		require.NoError(t, os.Truncate(file, 0))
	}
	_, err = openAlone(dir, nil)
	require.ErrorIs(t, err, raftstore.ErrDamaged)
	require.ErrorContains(t, err, "and the newest snapshot that can be read ends with 0")
	require.ErrorContains(t, err, "run 'entente cluster repair m1' against another member, then start this one again: "+
		"it is rebuilt from the others and keeps its id and keys")
}
