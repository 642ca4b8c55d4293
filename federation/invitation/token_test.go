package invitation

import (
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/token"
)

func tokenText(t testing.TB, change func(*statev1.InvitationContent)) string {
	t.Helper()
	content := &statev1.InvitationContent{
		Id: strings.Repeat("ab", 16), Secret: make([]byte, 32), TrustDomain: "eu.example.org",
		ForeignTrustDomain: "us.example.org",
		Addresses: []string{
			"eu-1.example.org:7440",
		}, Identities: [][]byte{make([]byte, 32)}, ExpireSeconds: 1_800_000_000,
	}
	change(content)
	text, err := token.Encode(token.InvitationPrefix, content)
	require.NoError(t, err)
	return text
}

func TestInvitationToken(t *testing.T) {
	made := Token{
		ID: token.NewID(), Secret: token.NewSecret(),
		TrustDomain: spiffeid.RequireTrustDomainFromString("eu.example.org"),
		Foreign:     spiffeid.RequireTrustDomainFromString("us.example.org"),
		Addresses:   []string{"eu-1.example.org:7440", "eu-2.example.org:7440"},
		Identities:  [][32]byte{{1}, {2}}, Expires: time.Unix(1_800_000_000, 0),
	}
	text, err := made.Text()
	require.NoError(t, err)
	back, err := ParseToken(" " + text + "\n")
	require.NoError(t, err)
	require.Equal(t, made, back)
	require.NotContains(t, made.String(), text)
	require.NoError(t, made.accepts([32]byte{2}))
	require.ErrorContains(t, made.accepts([32]byte{3}), "nothing was sent")

	for name, c := range map[string]struct {
		text string
		is   error
		want string
	}{
		"cut": {text[:len(text)-5], token.ErrDamaged, "a damaged token"},
		"a join token": {"entente-join-1-AAAA", token.ErrNotAToken,
			`it does not begin with "entente-federate-1-"`},
		"no secret": {tokenText(t, func(c *statev1.InvitationContent) { c.Secret = nil }), token.ErrNotAToken,
			"its secret is malformed"},
		"a bad id": {tokenText(t, func(c *statev1.InvitationContent) { c.Id = "first" }), token.ErrNotAToken,
			"its id is malformed"},
		"no addresses": {tokenText(t, func(c *statev1.InvitationContent) { c.Addresses = nil }),
			token.ErrNotAToken, "it has 0 addresses"},
		"a bad address": {tokenText(t, func(c *statev1.InvitationContent) { c.Addresses[0] = "eu-1" }),
			token.ErrNotAToken, "an address in it is malformed"},
		"no members": {tokenText(t, func(c *statev1.InvitationContent) { c.Identities = nil }),
			token.ErrNotAToken, "the identity keys of 0 members"},
		"a cut digest": {tokenText(t, func(c *statev1.InvitationContent) { c.Identities[0] = c.Identities[0][:9] }),
			token.ErrNotAToken, "identity key is malformed"},
		"with itself": {tokenText(t, func(c *statev1.InvitationContent) { c.ForeignTrustDomain = c.TrustDomain }),
			token.ErrNotAToken, "to federate with itself"},
		"no trust domain": {tokenText(t, func(c *statev1.InvitationContent) { c.TrustDomain = "spiffe://eu/x" }),
			token.ErrNotAToken, "not the name of a trust domain"},
		"before 1970": {tokenText(t, func(c *statev1.InvitationContent) { c.ExpireSeconds = -1 }),
			token.ErrNotAToken, "its expiry is malformed"},
		"something unknown": {tokenText(t, func(c *statev1.InvitationContent) {
			c.ProtoReflect().SetUnknown([]byte{0x78,
				1})
		}), token.ErrNotAToken, "not written as a member writes tokens"},
	} {
		_, err := ParseToken(c.text)
		require.ErrorIs(t, err, c.is, name)
		require.ErrorIs(t, err, ErrToken, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

// FuzzParseToken tests that each accepted token has one text, and that its parts are within limits.
func FuzzParseToken(f *testing.F) {
	f.Add(tokenText(f, func(*statev1.InvitationContent) {}))
	f.Add(tokenText(f, func(c *statev1.InvitationContent) { c.ProtoReflect().SetUnknown([]byte{0x78, 1}) }))
	f.Add(token.InvitationPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseToken(text)
		if err != nil {
			require.ErrorIs(t, err, ErrToken)
			return
		}
		again, err := parsed.Text()
		require.NoError(t, err)
		require.Equal(t, strings.TrimSpace(text), again)
		require.NotEmpty(t, parsed.Identities)
		require.LessOrEqual(t, len(parsed.Addresses), relationship.MaxPeerAddresses)
		require.NotEqual(t, parsed.TrustDomain, parsed.Foreign)
	})
}
