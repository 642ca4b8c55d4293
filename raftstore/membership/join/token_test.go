package join

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

func tokenText(t testing.TB, change func(*statev1.JoinTokenContent)) string {
	t.Helper()
	content := &statev1.JoinTokenContent{
		ClusterName: "eu", Id: strings.Repeat("ab", 16), Secret: make([]byte, 32), ExpireSeconds: noon.Unix(),
		Identities: [][]byte{make([]byte, 32)},
	}
	change(content)
	text, err := token.Encode(token.JoinPrefix, content)
	require.NoError(t, err)
	return text
}

func TestTokenText(t *testing.T) {
	made := NewToken("eu", noon, []memberid.Digest{{9}, {1}})
	text, err := made.Text()
	require.NoError(t, err)
	back, err := ParseToken("  " + text + "\n")
	require.NoError(t, err)
	assert.True(t, made.Expires.Equal(back.Expires))
	back.Expires = made.Expires
	assert.Equal(t, made, back)
	assert.NotContains(t, made.String(), text)
	require.NoError(t, made.accepts(memberid.Digest{9}))
	require.ErrorContains(t, made.accepts(memberid.Digest{2}), `not a member of cluster "eu"`)

	for name, c := range map[string]struct{ text, want string }{
		"nothing":             {"", `it does not begin with "entente-join-1-"`},
		"another version":     {strings.Replace(text, "-1-", "-2-", 1), `it does not begin with "entente-join-1-"`},
		"the end is missing":  {text[:len(text)-4], "its checksum does not fit"},
		"one letter is wrong": {text[:40] + string(text[40]^1) + text[41:], ""},
		"padding":             {text + "=", "it has characters that no token has"},
		"a line break within": {text[:60] + "\n" + text[60:], "it has characters that no token has"},
		"very long":           {text + strings.Repeat("A", token.MaxText), "more than any token"},
		"no cluster": {
			tokenText(t, func(c *statev1.JoinTokenContent) { c.ClusterName = "" }), "its cluster name is malformed",
		},
		"an id of words": {
			tokenText(t, func(c *statev1.JoinTokenContent) { c.Id = "first" }), "its id is malformed",
		},
		"a short secret": {
			tokenText(t, func(c *statev1.JoinTokenContent) { c.Secret = c.Secret[1:] }), "its secret is malformed",
		},
		"no members": {
			tokenText(t, func(c *statev1.JoinTokenContent) { c.Identities = nil }), "it names 0 members",
		},
		"half a digest": {
			tokenText(t, func(c *statev1.JoinTokenContent) { c.Identities[0] = c.Identities[0][:16] }),
			"the digest of a member's identity key is malformed",
		},
		"before 1970": {
			tokenText(t, func(c *statev1.JoinTokenContent) { c.ExpireSeconds = -1 }), "its expiry is malformed",
		},
		"an unknown field": {
			tokenText(t, func(c *statev1.JoinTokenContent) { c.ProtoReflect().SetUnknown([]byte{0x78, 1}) }),
			"it is not written as a member writes tokens",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseToken(c.text)
			require.ErrorIs(t, err, ErrMalformedToken)
			require.ErrorContains(t, err, c.want)
			if len(c.text) > 60 {
				assert.NotContains(t, err.Error(), c.text[len(token.JoinPrefix):60],
					"an error does not reveal the token")
			}
		})
	}
}

// Every accepted token has one text, and its parts are within their limits.
func FuzzParseToken(f *testing.F) {
	text, err := NewToken("eu", noon, []memberid.Digest{{1}, {2}}).Text()
	require.NoError(f, err)
	f.Add(text)
	f.Add(tokenText(f, func(*statev1.JoinTokenContent) {}))
	f.Add(tokenText(f, func(c *statev1.JoinTokenContent) { c.ProtoReflect().SetUnknown([]byte{0x78, 1}) }))
	f.Add(token.JoinPrefix)
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
		require.LessOrEqual(t, len(token.Identities), directory.MaxMembers)
	})
}
