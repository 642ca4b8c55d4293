package svid

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(b)
}

// A reader that follows ..data once finds the files of one generation, or none. A generation replaces what was there
// before, and only the present one stays.
func TestGenerations(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("of an earlier version"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, generationPrefix+"left"), 0o700))
	stop, read := make(chan struct{}), make(chan error, 1)
	write := func(n int) {
		at := []byte(fmt.Sprint(n))
		require.NoError(t, writeGeneration(dir, []part{{"a", 0o600, at}, {"b", 0o644, at}}))
	}
	write(0)
	go func() {
		for {
			select {
			case <-stop:
				read <- nil
				return
			default:
			}
			generation, err := os.Readlink(filepath.Join(dir, currentLink))
			if err != nil {
				read <- err
				return
			}
			a, errA := os.ReadFile(filepath.Join(dir, generation, "a"))
			b, errB := os.ReadFile(filepath.Join(dir, generation, "b"))
			if errA == nil && errB == nil && !bytes.Equal(a, b) {
				read <- fmt.Errorf("%s and %s", a, b)
				return
			}
		}
	}()
	for n := range 50 {
		write(n)
	}
	close(stop)
	require.NoError(t, <-read)
	require.Equal(t, "49", readFile(t, dir, "a"))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 4, "a, b, ..data and one generation")
	info, err := os.Stat(filepath.Join(dir, "a"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}
