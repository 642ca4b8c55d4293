package keys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/shorttest"
)

// TestSecretsAreStoredAsKeysAre follows a secret through the forms of its folder: in the clear, encrypted, locked, with
// another wrapping key, and in the clear again.
func TestSecretsAreStoredAsKeysAre(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	path := filepath.Join(dir, "a"+secretSuffix)
	plain, err := OpenFolder(dir)
	require.NoError(t, err)
	_, err = plain.LoadSecret("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, plain.SaveSecret("a", []byte("before")))
	require.NoError(t, plain.SaveSecret("a", []byte("the secret")))
	holds := func(f *Folder, encrypted bool) {
		t.Helper()
		secret, err := f.LoadSecret("a")
		require.NoError(t, err)
		require.Equal(t, "the secret", string(secret))
		file, err := f.readSecret("a")
		require.NoError(t, err)
		require.Equal(t, encrypted, string(file.Content) != "the secret")
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode())
	}
	holds(plain, false)
	names, err := plain.Names(t.Context())
	require.NoError(t, err)
	require.Empty(t, names, "it is no key")

	vault := &away{LocalWrapper: wrapperOf(t, 1)}
	holds(opened(t, dir, by(vault)), true)
	vault.err = errors.New("sealed")
	locked, err := OpenEncryptedFolder(dir, by(vault))
	require.NoError(t, err)
	_, err = locked.LoadSecret("a")
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorIs(t, locked.SaveSecret("a", []byte("other")), ErrLocked)
	vault.err = nil
	require.NoError(t, locked.Unlock(t.Context()))
	holds(locked, true)
	holds(opened(t, dir, by(wrapperOf(t, 2), vault)), true)

	off := by(wrapperOf(t, 2))
	off.Off = true
	holds(opened(t, dir, off), false)
	plain, err = OpenFolder(dir)
	require.NoError(t, err)
	holds(plain, false)
}

// TestSecretsAreBound: a secret opens under its name, for its member and its domain alone, and one that does not open
// is deleted when its folder is encrypted again.
func TestSecretsAreBound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	f := opened(t, dir, by(wrapperOf(t, 1)))
	require.NoError(t, f.SaveSecret("a", []byte("the secret")))
	require.NoError(t, os.Rename(filepath.Join(dir, "a"+secretSuffix), filepath.Join(dir, "b"+secretSuffix)))
	_, err := f.LoadSecret("b")
	require.EqualError(t, err, filepath.Join(dir, "b.secret")+
		" does not decrypt: it was altered, or belongs to another data key or member")

	require.NoError(t, os.Remove(filepath.Join(dir, dataKeyName)))
	plain, err := OpenFolder(dir)
	require.NoError(t, err)
	_, err = plain.LoadSecret("b")
	require.ErrorContains(t, err, "is encrypted, and its data key is gone")
	other := by(wrapperOf(t, 1))
	other.Off = true
	_, err = opened(t, dir, other).LoadSecret("b")
	require.Error(t, err)
}

// TestDamagedSecret: no bit that flips, and no length that is missing, gives another secret.
func TestDamagedSecret(t *testing.T) {
	shorttest.Skip(t, "damages every bit of a file")
	for _, f := range []*Folder{
		func() *Folder {
			f, err := OpenFolder(filepath.Join(t.TempDir(), "keys"))
			require.NoError(t, err)
			return f
		}(),
		opened(t, filepath.Join(t.TempDir(), "keys"), by(wrapperOf(t, 1))),
	} {
		require.NoError(t, f.SaveSecret("a", []byte("the secret")))
		path := filepath.Join(f.dir, "a"+secretSuffix)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		refused := func(b []byte) {
			require.NoError(t, os.WriteFile(path, b, 0o600))
			_, err := f.LoadSecret("a")
			require.Error(t, err)
		}
		for bit := range 8 * len(whole) {
			b := append([]byte{}, whole...)
			b[bit/8] ^= 1 << (bit % 8)
			refused(b)
		}
		for length := range whole {
			refused(whole[:length])
		}
	}
}
