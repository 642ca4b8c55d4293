package sealed_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/sealed"
)

// TestEveryBit flips every bit of a file, and cuts it at every length.
func TestEveryBit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	_, err := sealed.Read(path, 100)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, sealed.Write(path, []byte("before")))
	require.NoError(t, sealed.Write(path, []byte("content")))
	content, err := sealed.Read(path, 100)
	require.NoError(t, err)
	require.Equal(t, "content", string(content))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	_, err = sealed.Read(path, info.Size()-1)
	require.EqualError(t, err, "it has 39 bytes, which is too many")

	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	damaged := func(b []byte) {
		require.NoError(t, os.WriteFile(path, b, 0o600))
		_, err := sealed.Read(path, 100)
		require.ErrorIs(t, err, sealed.ErrDamaged)
	}
	for bit := range 8 * len(whole) {
		b := append([]byte{}, whole...)
		b[bit/8] ^= 1 << (bit % 8)
		damaged(b)
	}
	for length := range whole {
		damaged(whole[:length])
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no file is left behind")
}
