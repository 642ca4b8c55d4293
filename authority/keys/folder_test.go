package keys

import (
	"crypto/rand"
	"crypto/x509"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestKeyFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	keys, err := OpenFolder(dir)
	require.NoError(t, err)
	made, err := keys.Create(t.Context(), "a")
	require.NoError(t, err)
	again, err := OpenFolder(dir)
	require.NoError(t, err)
	read, err := again.Signer("a")
	require.NoError(t, err)
	require.Equal(t, made, read)
	for path, mode := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "a.pem"): 0o600} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), path)
	}

	_, err = keys.Signer("b")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.pem"), []byte("no key"), 0o600))
	_, err = keys.Signer("b")
	require.ErrorContains(t, err, "b.pem: it holds no private key")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "c.pem"), nil, 0o644))
	_, err = keys.Signer("c")
	require.ErrorContains(t, err, "so that others can read it; run chmod 0600 ")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d.pem"), make([]byte, maxFile+1), 0o600))
	_, err = keys.Signer("d")
	require.ErrorContains(t, err, "which is no key")
	require.NoError(t, keys.Delete(t.Context(), "a"))
	require.NoError(t, keys.Delete(t.Context(), "a"))
	_, err = keys.Signer("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestKeyStores holds every store of keys to the contract.
func TestKeyStores(t *testing.T) {
	folder, err := OpenFolder(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	for name, keys := range map[string]Store{"disk": folder, "memory": NewMemory()} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			made, err := keys.Create(ctx, "a")
			require.NoError(t, err)
			got, err := keys.Signer("a")
			require.NoError(t, err)
			require.Equal(t, made, got)
			none, err := keys.Certificate("a")
			require.NoError(t, err)
			require.Nil(t, none)
			template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, made.Public(), made)
			require.NoError(t, err)
			certificate, err := x509.ParseCertificate(der)
			require.NoError(t, err)
			require.NoError(t, keys.Certify(ctx, "a", certificate))
			kept, err := keys.Certificate("a")
			require.NoError(t, err)
			require.True(t, certificate.Equal(kept))
			again, err := keys.Create(ctx, "a")
			require.NoError(t, err)
			require.NotEqual(t, made, again)
			none, err = keys.Certificate("a")
			require.NoError(t, err)
			require.Nil(t, none, "it belonged to the key before")
			_, err = keys.Create(ctx, "b")
			require.NoError(t, err)
			names, err := keys.Names(ctx)
			require.NoError(t, err)
			slices.Sort(names)
			require.Equal(t, []string{"a", "b"}, names)
			require.NoError(t, keys.Delete(ctx, "a"))
			require.NoError(t, keys.Delete(ctx, "a"))
			_, err = keys.Signer("a")
			require.ErrorIs(t, err, fs.ErrNotExist)
			_, err = keys.Certificate("a")
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.ErrorIs(t, keys.Certify(ctx, "a", certificate), fs.ErrNotExist)
		})
	}
}

// FuzzKeyFile holds the parser of key files against whatever is in the folder.
func FuzzKeyFile(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if key, _, err := parseFile(content); (key == nil) == (err == nil) {
			t.Fatalf("key %v, error %v", key, err)
		}
	})
}
