package keys

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// wrapperOf returns a local wrapper whose key repeats a byte.
func wrapperOf(t *testing.T, b byte) *LocalWrapper {
	t.Helper()
	w, err := ParseLocalWrapper(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, keySize)) + "\n")
	require.NoError(t, err)
	return w
}

func by(wrappers ...Wrapper) Encryption {
	return Encryption{Domain: "eu.example.org", Member: "eu-1", Wrappers: wrappers}
}

// away is a wrapping key in another system that is down while err is set.
type away struct {
	*LocalWrapper
	err error
}

func (away) Remote() bool { return true }

func (a *away) Wrap(ctx context.Context, key, bound []byte) ([]byte, error) {
	if a.err != nil {
		return nil, a.err
	}
	return a.LocalWrapper.Wrap(ctx, key, bound)
}

func (a *away) Unwrap(ctx context.Context, wrapped, bound []byte) ([]byte, error) {
	if a.err != nil {
		return nil, a.err
	}
	return a.LocalWrapper.Unwrap(ctx, wrapped, bound)
}

// opened opens and unlocks a folder.
func opened(t *testing.T, dir string, e Encryption) *Folder {
	t.Helper()
	f, err := OpenEncryptedFolder(dir, e)
	require.NoError(t, err)
	require.NoError(t, f.Unlock(t.Context()))
	return f
}

// requireSealed holds that no file in the folder contains a private key in the clear.
func requireSealed(t *testing.T, dir string, sealed bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+Suffix))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, !sealed, bytes.Contains(raw, []byte("BEGIN PRIVATE KEY")), "%s: %s", path, raw)
	}
}

func TestClearKeysAreEncryptedAndDecrypted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	clearFolder, err := OpenFolder(dir)
	require.NoError(t, err)
	made, err := clearFolder.Create(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, UnfinishedPrefix+"1"), []byte("half a key"), 0o600))

	sealed := opened(t, dir, by(wrapperOf(t, 1)))
	requireSealed(t, dir, true)
	require.NoFileExists(t, filepath.Join(dir, UnfinishedPrefix+"1"))
	other, err := sealed.Create(t.Context(), "b")
	require.NoError(t, err)
	requireSealed(t, dir, true)

	_, err = OpenFolder(dir)
	require.EqualError(t, err, "the keys in "+dir+" are encrypted, with a data key that "+wrapperOf(t, 1).ID()+
		" wrapped; configure that encryption, or delete the folder: the member then prepares new authorities")
	_, err = OpenEncryptedFolder(dir, by(wrapperOf(t, 2)))
	require.NoError(t, err)

	// Another wrapping key: the one before it has to be given once.
	wrong, err := OpenEncryptedFolder(dir, by(wrapperOf(t, 2)))
	require.NoError(t, err)
	require.EqualError(t, wrong.Unlock(t.Context()), "the wrapping key is not the one of the data key: "+dir+
		"/data-key.json was wrapped with "+wrapperOf(t, 1).ID()+"; add an encryption block with that key, or delete "+
		"the folder "+dir+": the member then prepares new authorities")
	opened(t, dir, by(wrapperOf(t, 2), wrapperOf(t, 1)))
	again := opened(t, dir, by(wrapperOf(t, 2)))
	for name, want := range map[string]any{"a": made, "b": other} {
		got, err := again.Signer(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}

	off := by(wrapperOf(t, 2))
	off.Off = true
	opened(t, dir, off)
	requireSealed(t, dir, false)
	require.NoFileExists(t, filepath.Join(dir, dataKeyName))
	plain, err := OpenFolder(dir)
	require.NoError(t, err)
	got, err := plain.Signer("a")
	require.NoError(t, err)
	require.Equal(t, made, got)
}

// TestInterruptedEncryptionLosesNothing stops the rewrite of three keys before and after each replaced file.
func TestInterruptedEncryptionLosesNothing(t *testing.T) {
	for stop := range 4 {
		dir := filepath.Join(t.TempDir(), "keys")
		plain, err := OpenFolder(dir)
		require.NoError(t, err)
		made := map[string]any{}
		for _, name := range []string{"a", "b", "c"} {
			made[name], err = plain.Create(t.Context(), name)
			require.NoError(t, err)
		}
		half, err := OpenEncryptedFolder(dir, by(wrapperOf(t, 1)))
		require.NoError(t, err)
		half.dataKey, err = half.encryption.unwrap(t.Context(), dir, nil)
		require.NoError(t, err)
		for _, name := range []string{"a", "b", "c"}[:stop] {
			require.NoError(t, half.rewriteKey(name))
		}
		again := opened(t, dir, by(wrapperOf(t, 1)))
		requireSealed(t, dir, true)
		for name, want := range made {
			got, err := again.Signer(name)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
}

func TestLockedFolderSignsOnceItIsUnlocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	vault := &away{LocalWrapper: wrapperOf(t, 1)}
	made, err := opened(t, dir, by(vault)).Create(t.Context(), "a")
	require.NoError(t, err)

	vault.err = errors.New("sealed")
	f, err := OpenEncryptedFolder(dir, by(vault))
	require.NoError(t, err)
	err = f.Unlock(t.Context())
	require.ErrorIs(t, err, ErrLocked)
	require.EqualError(t, err, "the signing keys of this member are locked: unwrap their data key with "+vault.ID()+
		": sealed")
	require.Equal(t, err, f.Locked())
	signer, err := f.Signer("a")
	require.NoError(t, err)
	require.Equal(t, made.Public(), signer.Public())
	digest := sha256.Sum256([]byte("x"))
	_, err = SignDigest(signer, digest)
	require.ErrorIs(t, err, ErrLocked)
	_, err = f.Create(t.Context(), "b")
	require.ErrorIs(t, err, ErrLocked)
	names, err := f.Names(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)

	vault.err = nil
	require.NoError(t, f.Unlock(t.Context()))
	require.NoError(t, f.Locked())
	<-f.Changed()
	_, err = SignDigest(signer, digest)
	require.NoError(t, err)

	// Once unlocked, an outage changes nothing.
	vault.err = errors.New("sealed")
	require.NoError(t, f.Unlock(t.Context()))
	_, err = f.Create(t.Context(), "b")
	require.NoError(t, err)
}

// TestSealedKeysAreBound holds that a file works for one name of one member of one domain, and with one data key.
func TestSealedKeysAreBound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	f := opened(t, dir, by(wrapperOf(t, 1)))
	for _, name := range []string{"a", "b"} {
		_, err := f.Create(t.Context(), name)
		require.NoError(t, err)
	}
	path := func(name string) string { return filepath.Join(dir, name+Suffix) }
	read := func(path string) []byte {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		return raw
	}
	a, b := read(path("a")), read(path("b"))
	public := "-----BEGIN PUBLIC"
	_, publicOfB, _ := strings.Cut(string(b), public)
	sealedOfA, _, _ := strings.Cut(string(a), public)
	for what, content := range map[string]string{
		"the file of another name":      string(b),
		"the public key of another key": sealedOfA + public + publicOfB,
	} {
		require.NoError(t, os.WriteFile(path("a"), []byte(content), 0o600))
		_, err := opened(t, dir, by(wrapperOf(t, 1))).Signer("a")
		require.EqualError(t, err, "key file "+path("a")+" does not decrypt: it was altered, or is the file of "+
			"another key or member; restore it from a copy, or delete it: the member then prepares new authorities",
			what)
	}
	require.NoError(t, os.WriteFile(path("a"), a, 0o600))

	for what, e := range map[string]Encryption{
		"member": {Domain: "eu.example.org", Member: "eu-2", Wrappers: []Wrapper{wrapperOf(t, 1)}},
		"domain": {Domain: "us.example.org", Member: "eu-1", Wrappers: []Wrapper{wrapperOf(t, 1)}},
	} {
		other, err := OpenEncryptedFolder(dir, e)
		require.NoError(t, err)
		err = other.Unlock(t.Context())
		require.ErrorIs(t, err, ErrWrongKey, what)
		require.ErrorContains(t, err, "the data key was altered, or belongs to another member", what)
	}

	require.NoError(t, os.Remove(filepath.Join(dir, dataKeyName)))
	_, err := opened(t, dir, by(wrapperOf(t, 1))).Signer("a")
	require.ErrorContains(t, err, " is encrypted with the data key ")
	require.NoError(t, os.WriteFile(filepath.Join(dir, dataKeyName), []byte("{"), 0o600))
	_, err = OpenEncryptedFolder(dir, by(wrapperOf(t, 1)))
	require.EqualError(t, err, "the data key "+dir+"/data-key.json is damaged: unexpected EOF; restore it from a "+
		"copy of this folder, or delete the folder: the member then prepares new authorities")
}

func TestWrappingKeyHas32Bytes(t *testing.T) {
	for _, text := range []string{"", "x", base64.StdEncoding.EncodeToString(make([]byte, 16))} {
		_, err := ParseLocalWrapper(text)
		require.EqualError(t, err, "a wrapping key is 32 bytes in base64; make one with `openssl rand -base64 32`")
	}
}
