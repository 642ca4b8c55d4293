package memberid

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIdentityKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "member", "identity.pem")
	made, err := LoadIdentity(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	read, err := LoadIdentity(path)
	require.NoError(t, err)
	assert.Equal(t, made.Digest, read.Digest)
	digest, err := ParseCertificate(made.Certificate.Certificate[0])
	require.NoError(t, err)
	assert.Equal(t, made.Digest, digest)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no temporary file remains")

	other, err := LoadIdentity(filepath.Join(t.TempDir(), "identity.pem"))
	require.NoError(t, err)
	forged := *made.Certificate.Leaf
	forged.Raw = append([]byte(nil), made.Certificate.Certificate[0]...)
	forged.Raw[len(forged.Raw)-1] ^= 1
	_, err = ParseCertificate(forged.Raw)
	require.ErrorContains(t, err, "identity certificate is not signed by its own key")
	require.NotEqual(t, made.Digest, other.Digest)

	require.NoError(t, os.Chmod(path, 0o640))
	_, err = LoadIdentity(path)
	require.ErrorContains(t, err, "its mode is 0640, so that others can use it; if none has, chmod 600 it")
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = LoadIdentity(path)
	require.ErrorContains(
		t,
		err,
		"it does not hold exactly one PRIVATE KEY in PEM; restore it from a copy, or remove this member from the "+
			"cluster, empty its data folder and join again",
	)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	_, err = LoadIdentity(path)
	require.ErrorContains(t, err, "it is not a regular file")
}

func TestIDsAndAddresses(t *testing.T) {
	for _, id := range []string{"a", "eu-1", "EU_1.b", strings.Repeat("x", 63)} {
		require.NoError(t, CheckID(id))
	}
	for id, text := range map[string]string{
		"": "has 0 bytes", strings.Repeat("x", 64): "has 64 bytes", "-a": "position 1",
		"a@b": `'@' is not allowed at position 2`,
		"a|b": "is not allowed", "a/b": "is not allowed", "ä": "is not allowed",
	} {
		require.ErrorContains(t, CheckID(id), text, id)
	}
	for _, a := range []string{"eu-1.example.org:7440", "10.0.0.1:1", "[::1]:65535"} {
		require.NoError(t, CheckAddress(a))
	}
	for a, text := range map[string]string{
		"eu-1": "is not host:port", "eu-1:0": "from 1 to 65535", "eu-1:https": "from 1 to 65535",
		":7440": "names no host", "0.0.0.0:7440": "set member.advertise", "[::]:7440": "names no host",
		"a|b:1": "has a character",
	} {
		require.ErrorContains(t, CheckAddress(a), text, a)
	}
}

// Whichever bit of the file flips, and wherever it is cut off, it is refused: another key would be another member.
func TestDamagedIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.pem")
	_, err := LoadIdentity(path)
	require.NoError(t, err)
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	refused := func(data []byte, what string) {
		_, err := parseIdentity(data)
		require.ErrorContains(t, err, "restore it from a copy, or remove this member from the cluster", what)
		require.NotContains(t, err.Error(), "\n", what)
	}
	for at := range file {
		for bit := range 8 {
			damaged := bytes.Clone(file)
			damaged[at] ^= 1 << bit
			refused(damaged, fmt.Sprintf("bit %d of byte %d", bit, at))
		}
		refused(file[:at], fmt.Sprintf("cut off after %d bytes", at))
	}
}

// Every accepted identity key has a certificate that verifies, and each refusal has a remedy.
func FuzzIdentityFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "identity.pem")
	_, err := LoadIdentity(path)
	require.NoError(f, err)
	file, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(file)
	f.Add(append(file, '\n'))
	f.Add(bytes.Replace(file, []byte("PRIVATE"), []byte("PUBLIC"), 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := parseIdentity(data)
		if err != nil {
			require.ErrorContains(t, err, "restore it from a copy")
			return
		}
		identity, err := newIdentity(key)
		require.NoError(t, err)
		digest, err := ParseCertificate(identity.Certificate.Certificate[0])
		require.NoError(t, err)
		require.Equal(t, identity.Digest, digest)
	})
}
