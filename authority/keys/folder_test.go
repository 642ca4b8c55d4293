package keys

import (
	"bytes"
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
	sealed := opened(t, filepath.Join(t.TempDir(), "keys"), by(wrapperOf(t, 1)))
	for name, keys := range map[string]Store{"disk": folder, "encrypted": sealed, "memory": NewMemory()} {
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
		if file, err := parseFile(content); (file.public == nil) == (err == nil) {
			t.Fatalf("file %v, error %v", file, err)
		}
	})
}

// Whichever bit of a key file flips, and wherever it is cut off, its key is refused: with another key, what it signs
// would verify nowhere.
func TestDamagedKeyFile(t *testing.T) {
	clear, err := OpenFolder(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	sealed := opened(t, filepath.Join(t.TempDir(), "keys"), by(wrapperOf(t, 1)))
	for name, folder := range map[string]*Folder{"clear": clear, "encrypted": sealed} {
		for _, certified := range []bool{false, true} {
			key, err := folder.Create(t.Context(), "a")
			require.NoError(t, err)
			alone, err := os.ReadFile(filepath.Join(folder.dir, "a.pem"))
			require.NoError(t, err)
			if certified {
				template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
				der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
				require.NoError(t, err)
				certificate, err := x509.ParseCertificate(der)
				require.NoError(t, err)
				require.NoError(t, folder.Certify(t.Context(), "a", certificate))
			}
			content, err := os.ReadFile(filepath.Join(folder.dir, "a.pem"))
			require.NoError(t, err)
			refused := func(damaged []byte, what string, at int) {
				file, err := parseFile(damaged)
				if err == nil {
					_, err = folder.open("a", file)
				}
				require.Error(t, err, "%s, certified %t: %s, %d", name, certified, what, at)
				require.NotContains(t, err.Error(), "\n")
			}
			for at := range content {
				for bit := range 8 {
					damaged := bytes.Clone(content)
					damaged[at] ^= 1 << bit
					refused(damaged, "flipped", 8*at+bit)
				}
				// Before its certificate it is the file of a root that was not completed: nothing is below it.
				if at != len(alone) {
					refused(content[:at], "cut off", at)
				}
			}
		}
	}
}
