package logfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/ententehq/entente/internal/damagetest"
	"github.com/ententehq/entente/raftstore/internal/logfile"
)

// entry returns an entry whose content depends on its index: of every type and size, up to several pages.
func entry(index, term uint64) *raft.Log {
	l := &raft.Log{Index: index, Term: term, Type: raft.LogType(index % 6)}
	switch index % 5 {
	case 0:
		l.Data = bytes.Repeat([]byte{byte(index)}, int(index%3)*9000)
	case 1:
		l.Extensions, l.AppendedAt = []byte("extension"), time.Unix(1_800_000_000, int64(index))
	default:
		l.Data = fmt.Appendf(nil, "the content of entry %d", index)
	}
	return l
}

type store interface {
	raft.LogStore
	raft.StableStore
}

// fill writes entries first to last, in batches as Raft does, and a vote.
func fill(t *testing.T, to store, first, last uint64) {
	t.Helper()
	for index := first; index <= last; {
		var batch []*raft.Log
		for ; index <= last && len(batch) < 64; index++ {
			batch = append(batch, entry(index, 3))
		}
		require.NoError(t, to.StoreLogs(batch))
	}
	require.NoError(t, to.SetUint64([]byte("CurrentTerm"), 3))
	require.NoError(t, to.SetUint64([]byte("LastVoteTerm"), 3))
	require.NoError(t, to.Set([]byte("LastVoteCand"), []byte("member-2")))
}

// content describes everything in a file, or returns the first error.
func content(f store) (string, error) {
	var all strings.Builder
	first, err := f.FirstIndex()
	last, err2 := f.LastIndex()
	if err := errors.Join(err, err2); err != nil {
		return "", err
	}
	fmt.Fprintf(&all, "%d to %d\n", first, last)
	for index := first; index <= last && index > 0; index++ {
		var l raft.Log
		if err := f.GetLog(index, &l); err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "%d %d %d %x %x %d\n", l.Index, l.Term, l.Type, l.Data, l.Extensions, l.AppendedAt.UnixNano())
	}
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		value, err := f.Get([]byte(key))
		if err != nil && err.Error() != "not found" {
			return "", err
		}
		fmt.Fprintf(&all, "%s %x\n", key, value)
	}
	return all.String(), nil
}

func open(t *testing.T, dir string) *logfile.File {
	t.Helper()
	f, err := logfile.Open(dir)
	require.NoError(t, err)
	return f
}

func TestLog(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	require.True(t, f.IsMonotonic())
	require.ErrorIs(t, f.GetLog(1, &raft.Log{}), raft.ErrLogNotFound)
	_, err := f.Get([]byte("CurrentTerm"))
	require.EqualError(t, err, "not found")

	fill(t, f, 1, 300)
	var l raft.Log
	require.NoError(t, f.GetLog(272, &l))
	require.Equal(t, entry(272, 3), &l)
	require.ErrorIs(t, f.GetLog(301, &l), raft.ErrLogNotFound)

	require.NoError(t, f.DeleteRange(1, 100))
	require.NoError(t, f.DeleteRange(290, 300))
	require.ErrorContains(t, f.DeleteRange(150, 160), "they are in the middle")
	require.NoError(t, f.StoreLog(entry(280, 4)), "what follows an entry that is written again is of another leader")
	require.ErrorContains(t, f.StoreLogs([]*raft.Log{entry(281, 4), entry(283, 4)}), "the entry 283 follows 281")
	before, err := content(f)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(before, "101 to 280\n"))
	require.NoError(t, f.Close())

	f = open(t, dir)
	after, err := content(f)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.NoError(t, f.StoreLogs([]*raft.Log{entry(500, 5), entry(501, 5)}))
	after, err = content(f)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(after, "500 to 501\n"), "a snapshot has replaced the entries before the gap")
	require.NoError(t, f.Close())
}

// TestDamage damages files, one at a time: what is read is what was written, or the file is refused in one line.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	fill(t, f, 1, 700)
	require.NoError(t, f.DeleteRange(1, 50))
	written, err := content(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	refused := 0
	for seed := range damagetest.Flips(t, 200) {
		copied := filepath.Join(t.TempDir(), "copy")
		damagetest.CopyFolder(t, dir, copied)
		what := damagetest.Damage(t, rand.New(rand.NewPCG(uint64(seed), 1)), copied, nil)
		f, err := logfile.Open(copied)
		if err == nil {
			var read string
			if read, err = content(f); err == nil {
				require.True(t, written == read, "seed %d: %s", seed, what)
			}
			require.NoError(t, f.Close())
		}
		if err != nil {
			refused++
			require.ErrorIs(t, err, logfile.ErrDamaged, "seed %d: %s", seed, what)
			require.NotContains(t, err.Error(), "\n", "seed %d: %s", seed, what)
		}
		require.NoError(t, os.RemoveAll(copied))
	}
	require.NotZero(t, refused)
	t.Logf("%d refused", refused)
}

// TestDamageWhileOpen damages a file that is open, as a disk does whose content changes by itself.
func TestDamageWhileOpen(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	fill(t, f, 1, 400)
	written, err := content(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	refused := 0
	for seed := range damagetest.Flips(t, 100) {
		copied := filepath.Join(t.TempDir(), "copy")
		damagetest.CopyFolder(t, dir, copied)
		f := open(t, copied)
		what := damagetest.Damage(t, rand.New(rand.NewPCG(uint64(seed), 2)), copied,
			func(path string) bool { return filepath.Base(path) != logfile.Name })
		read, err := content(f)
		if err != nil {
			refused++
			require.ErrorIs(t, err, logfile.ErrDamaged, "seed %d: %s", seed, what)
			require.NotContains(t, err.Error(), "\n", "seed %d: %s", seed, what)
		} else {
			require.True(t, written == read, "seed %d: %s", seed, what)
		}
		if err := f.Close(); err != nil {
			require.ErrorIs(t, err, logfile.ErrDamaged, "seed %d: %s", seed, what)
		}
		require.NoError(t, os.RemoveAll(copied))
	}
	require.NotZero(t, refused)
	t.Logf("%d refused", refused)
}

// TestLostTransaction gives a member back an older copy of its log, as a disk does that lost writes.
func TestLostTransaction(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	fill(t, f, 1, 20)
	require.NoError(t, f.Close())
	path := filepath.Join(dir, logfile.Name)
	older, err := os.ReadFile(path)
	require.NoError(t, err)

	f = open(t, dir)
	require.NoError(t, f.SetUint64([]byte("CurrentTerm"), 4))
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(path, older, 0o600))
	_, err = logfile.Open(dir)
	require.EqualError(t, err, path+" is damaged: its last transaction is 6, and 7 was written: the last ones are lost")

	require.NoError(t, os.Remove(path))
	_, err = logfile.Open(dir)
	require.EqualError(t, err, path+" is damaged: it is missing, and "+filepath.Join(dir, logfile.EndName)+" is there")
}

func TestCovered(t *testing.T) {
	f := open(t, t.TempDir())
	require.NoError(t, f.Covered(0), "a new member has nothing")
	fill(t, f, 1, 20)
	require.NoError(t, f.Covered(0))
	require.NoError(t, f.SnapshotTaken(10))
	require.NoError(t, f.DeleteRange(1, 8))
	require.NoError(t, f.Covered(10))
	require.NoError(t, f.Covered(8))
	require.ErrorContains(t, f.Covered(7), "begins with entry 9, and the newest snapshot that can be read ends with "+
		"7: what is between them is damaged")
	require.NoError(t, f.SnapshotTaken(30))
	require.NoError(t, f.DeleteRange(9, 20))
	require.NoError(t, f.Covered(30))
	require.ErrorContains(t, f.Covered(10), "a snapshot up to entry 30 was complete, and the newest that can be read "+
		"ends with 10: the snapshots beside")
	require.NoError(t, f.Close())
}

// TestConvert opens a folder of an earlier version, whose process was stopped anywhere in a conversion before.
func TestConvert(t *testing.T) {
	dir := t.TempDir()
	oldPath := filepath.Join(dir, logfile.OldName)
	old, err := raftboltdb.New(raftboltdb.Options{
		Path: oldPath, BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	require.NoError(t, err)
	fill(t, old, 5, 10) // superseded by a snapshot
	fill(t, old, 90, 700)
	require.NoError(t, old.DeleteRange(90, 99))
	require.NoError(t, old.Close())
	expected := open(t, t.TempDir())
	fill(t, expected, 100, 700)
	want, err := content(expected)
	require.NoError(t, err)
	require.NoError(t, expected.Close())

	for name, left := range map[string]func(t *testing.T, dir string){
		"new": func(*testing.T, string) {},
		"unfinished": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, logfile.Name+".new"), []byte("half"), 0o600))
		},
		"without the last step": func(t *testing.T, dir string) {
			converted := t.TempDir()
			damagetest.CopyFolder(t, dir, converted)
			require.NoError(t, open(t, converted).Close())
			damagetest.CopyFolder(t, converted, dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			copied := t.TempDir()
			damagetest.CopyFolder(t, dir, copied)
			left(t, copied)
			f := open(t, copied)
			got, err := content(f)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.NoError(t, f.Close())
			require.NoFileExists(t, filepath.Join(copied, logfile.OldName))
		})
	}
	t.Run("cut off", func(t *testing.T) {
		copied := t.TempDir()
		damagetest.CopyFolder(t, dir, copied)
		require.NoError(t, os.Truncate(filepath.Join(copied, logfile.OldName), 20_000))
		_, err := logfile.Open(copied)
		require.ErrorIs(t, err, logfile.ErrDamaged)
		require.ErrorContains(t, err, "it is cut off: it has 20000 bytes")
	})
}
