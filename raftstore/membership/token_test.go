package membership

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/token"
)

func tokenText(t testing.TB, change func(*statev1.JoinTokenContent)) string {
	t.Helper()
	content := &statev1.JoinTokenContent{
		ClusterName: "eu", Id: strings.Repeat("ab", tokenIDBytes), Secret: make([]byte, 32), ExpireSeconds: noon.Unix(), Identities: [][]byte{make([]byte, 32)},
	}
	change(content)
	text, err := token.Encode(tokenPrefix, content)
	require.NoError(t, err)
	return text
}

func TestTokenText(t *testing.T) {
	made := NewToken("eu", noon, []Digest{{9}, {1}})
	text, err := made.Text()
	require.NoError(t, err)
	back, err := ParseToken("  " + text + "\n")
	require.NoError(t, err)
	assert.True(t, made.Expires.Equal(back.Expires))
	back.Expires = made.Expires
	assert.Equal(t, made, back)
	assert.NotContains(t, made.String(), text)
	require.NoError(t, made.Accepts(Digest{9}))
	require.ErrorContains(t, made.Accepts(Digest{2}), `not a member of cluster "eu"`)

	for name, c := range map[string]struct{ text, says string }{
		"nothing":             {"", `it does not begin with "entente-join-1-"`},
		"another version":     {strings.Replace(text, "-1-", "-2-", 1), `it does not begin with "entente-join-1-"`},
		"the end is missing":  {text[:len(text)-4], "its checksum does not fit"},
		"one letter is wrong": {text[:40] + string(text[40]^1) + text[41:], ""},
		"padding":             {text + "=", "it has characters that no token has"},
		"a line break within": {text[:60] + "\n" + text[60:], "it has characters that no token has"},
		"very long":           {text + strings.Repeat("A", token.MaxText), "more than any token"},
		"no cluster":          {tokenText(t, func(c *statev1.JoinTokenContent) { c.ClusterName = "" }), "its cluster name is malformed"},
		"an id of words":      {tokenText(t, func(c *statev1.JoinTokenContent) { c.Id = "first" }), "its id is malformed"},
		"a short secret":      {tokenText(t, func(c *statev1.JoinTokenContent) { c.Secret = c.Secret[1:] }), "its secret is malformed"},
		"no members":          {tokenText(t, func(c *statev1.JoinTokenContent) { c.Identities = nil }), "it names 0 members"},
		"half a digest":       {tokenText(t, func(c *statev1.JoinTokenContent) { c.Identities[0] = c.Identities[0][:16] }), "the digest of a member's identity key is malformed"},
		"before 1970":         {tokenText(t, func(c *statev1.JoinTokenContent) { c.ExpireSeconds = -1 }), "its expiry is malformed"},
		"an unknown field":    {tokenText(t, func(c *statev1.JoinTokenContent) { c.ProtoReflect().SetUnknown([]byte{0x78, 1}) }), "it is not written as a member writes tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseToken(c.text)
			require.ErrorIs(t, err, ErrMalformedToken)
			require.ErrorContains(t, err, c.says)
			if len(c.text) > 60 {
				assert.NotContains(t, err.Error(), c.text[len(tokenPrefix):60], "an error does not give the token away")
			}
		})
	}
}

// Whatever is taken for a token has one text, and its parts are in bounds.
func FuzzParseToken(f *testing.F) {
	text, err := NewToken("eu", noon, []Digest{{1}, {2}}).Text()
	require.NoError(f, err)
	f.Add(text)
	f.Add(tokenText(f, func(*statev1.JoinTokenContent) {}))
	f.Add(tokenText(f, func(c *statev1.JoinTokenContent) { c.ProtoReflect().SetUnknown([]byte{0x78, 1}) }))
	f.Add(tokenPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformedToken)
			return
		}
		again, err := token.Text()
		require.NoError(t, err)
		require.Equal(t, strings.TrimSpace(text), again)
		require.NotEmpty(t, token.Identities)
		require.LessOrEqual(t, len(token.Identities), maxTokenMembers)
	})
}

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
	digest, err := parseIdentityCertificate(made.Certificate.Certificate[0])
	require.NoError(t, err)
	assert.Equal(t, made.Digest, digest)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing is left of the making")

	other, err := LoadIdentity(filepath.Join(t.TempDir(), "identity.pem"))
	require.NoError(t, err)
	forged := *made.Certificate.Leaf
	forged.Raw = append([]byte(nil), made.Certificate.Certificate[0]...)
	forged.Raw[len(forged.Raw)-1] ^= 1
	_, err = parseIdentityCertificate(forged.Raw)
	require.Error(t, err)
	require.NotEqual(t, made.Digest, other.Digest)

	require.NoError(t, os.Chmod(path, 0o640))
	_, err = LoadIdentity(path)
	require.ErrorContains(t, err, "its mode is 0640, so that others can use it; if nobody has, chmod 600 it")
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = LoadIdentity(path)
	require.ErrorContains(t, err, "it does not hold exactly one PRIVATE KEY in PEM; restore it from a copy, or remove this member from the cluster, empty its data folder and join anew")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	_, err = LoadIdentity(path)
	require.ErrorContains(t, err, "it is not a regular file")
}

func TestIDsAndAddresses(t *testing.T) {
	for _, id := range []string{"a", "eu-1", "EU_1.b", strings.Repeat("x", 63)} {
		require.NoError(t, CheckID(id))
	}
	for id, says := range map[string]string{
		"": "has 0 bytes", strings.Repeat("x", 64): "has 64 bytes", "-a": "position 1", "a@b": `'@' is not allowed at position 2`, "a|b": "is not allowed", "a/b": "is not allowed", "ä": "is not allowed",
	} {
		require.ErrorContains(t, CheckID(id), says, id)
	}
	for _, a := range []string{"eu-1.example.org:7440", "10.0.0.1:1", "[::1]:65535"} {
		require.NoError(t, CheckAddress(a))
	}
	for a, says := range map[string]string{
		"eu-1": "is not host:port", "eu-1:0": "from 1 to 65535", "eu-1:https": "from 1 to 65535", ":7440": "names no host", "0.0.0.0:7440": "set member.advertise", "[::]:7440": "names no host", "a|b:1": "has a character",
	} {
		require.ErrorContains(t, CheckAddress(a), says, a)
	}
}

// What is taken for an identity key can prove that it is one, and each refusal says what to do.
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
		digest, err := parseIdentityCertificate(identity.Certificate.Certificate[0])
		require.NoError(t, err)
		require.Equal(t, identity.Digest, digest)
	})
}
