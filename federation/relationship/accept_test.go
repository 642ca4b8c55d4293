package relationship

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
)

func signingKey(t *testing.T) crypto.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key.Public()
}

func TestAccept(t *testing.T) {
	us, other := federationtest.NewAuthority(t, "us.example.org"), federationtest.NewAuthority(t, "other.example.org")
	old, next := us.Bundle(t, 0), us.Rotated(t).Bundle(t, 0)
	at := func(b *bundle.Bundle, n uint64) *bundle.Bundle {
		b, err := b.WithSequence(n)
		require.NoError(t, err)
		return b
	}
	without := func(b *bundle.Bundle) *bundle.Bundle {
		b, err := b.With(func(c *bundle.Content) { c.Sequence = nil })
		require.NoError(t, err)
		return b
	}
	mislabelled, err := bundle.New(next.TrustDomain(), other.Bundle(t, 0).Content())
	require.NoError(t, err)
	parsed := func(keys string) *bundle.Bundle {
		b, _, err := bundle.Parse(next.TrustDomain(), []byte(`{"keys":[`+keys+`],"spiffe_sequence":8}`))
		require.NoError(t, err)
		return b
	}
	keys := []crypto.PublicKey{signingKey(t), signingKey(t)}
	wit := func(b *bundle.Bundle, key int) *bundle.Bundle {
		b, err := b.With(func(c *bundle.Content) { c.WITAuthorities = map[string]crypto.PublicKey{"w": keys[key-1]} })
		require.NoError(t, err)
		return b
	}
	for _, test := range []struct {
		name          string
		current, next *bundle.Bundle
		want          error
	}{
		{"the first one", nil, at(next, 0), nil},
		{"the first one without a sequence", nil, without(next), nil},
		{"a later one", at(old, 7), at(next, 8), nil},
		{"a much later one", at(old, 7), at(next, 1<<63), nil},
		{"a later one with the same keys", at(old, 7), at(old, 8), nil},
		{"the same again", at(old, 7), at(old, 7), nil},
		{"an older one", at(old, 7), at(next, 6), ErrRollback},
		{"an older one with the same keys", at(old, 7), at(old, 6), ErrRollback},
		{"sequence zero after one", at(old, 1), at(old, 0), ErrRollback},
		{"other keys under the same sequence", at(old, 7), at(next, 7), ErrEquivocation},
		{"other keys under sequence zero", at(old, 0), at(next, 0), ErrEquivocation},
		{"no sequence after one", at(old, 7), without(next), nil},
		{"a sequence after none", without(old), at(next, 0), nil},
		{"no sequence after none", without(old), without(next), nil},
		{"another domain's", at(old, 7), at(other.Bundle(t, 0), 8), ErrOtherTrustDomain},
		{"another domain's without a sequence", without(old), without(other.Bundle(t, 0)), ErrOtherTrustDomain},
		{"the first one, with another domain's authority", nil, mislabelled, ErrForeignAuthority},
		{"a later one, with another domain's authority", at(old, 7), at(mislabelled, 8), ErrForeignAuthority},
		{"no key at all revokes them", at(old, 7), parsed(``), nil},
		{"keys for WIT-SVIDs that an earlier version left out", at(old, 7), wit(at(old, 7), 1), nil},
		{"keys for WIT-SVIDs left out by a hub of an earlier version", wit(at(old, 7), 1), at(old, 7), nil},
		{"the same keys for WIT-SVIDs", wit(at(old, 7), 1), wit(at(old, 7), 1), nil},
		{"other keys for WIT-SVIDs under the same sequence", wit(at(old, 7), 1), wit(at(old, 7), 2), ErrEquivocation},
		{"other keys for WIT-SVIDs later", wit(at(old, 7), 1), wit(at(old, 8), 2), nil},
		{"keys for other uses alone", at(old, 7), parsed(`{"kty":"EC","use":"wit-svid"}`), nil},
		{"keys that no verifier can use alone", at(old, 7), parsed(`{"kty":"AKP","use":"x509-svid"}`), ErrNoUsableKey},
		{"the first one, with such keys", nil, parsed(`{"kty":"EC","use":"x509-svid","x5c":["AAAA"]}`), ErrNoUsableKey},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.ErrorIs(t, Accept(test.current, test.next), test.want)
		})
	}
}

// TestAcceptOrder states the law behind Accept: whatever a peer sends, in whatever order, the sequence of what is
// stored never goes down, and one sequence never stands for two sets of keys, as long as the peer numbers its bundles
// at all.
func TestAcceptOrder(t *testing.T) {
	authority := federationtest.NewAuthority(t, "us.example.org")
	var bundles []*bundle.Bundle
	for range 3 {
		bundles = append(bundles, authority.Bundle(t, 0))
		authority = authority.Rotated(t)
	}
	rapid.Check(t, func(t *rapid.T) {
		var current *bundle.Bundle
		keys := make(map[uint64][32]byte)
		for range rapid.IntRange(1, 20).Draw(t, "answers") {
			sequence := rapid.Uint64Range(0, 4).Draw(t, "sequence")
			next, err := rapid.SampledFrom(bundles).Draw(t, "keys").WithSequence(sequence)
			require.NoError(t, err)
			if err := Accept(current, next); err != nil {
				require.True(t, errors.Is(err, ErrRollback) || errors.Is(err, ErrEquivocation))
				continue
			}
			if current != nil {
				was, _ := current.Sequence()
				require.GreaterOrEqual(t, sequence, was)
			}
			if digest, seen := keys[sequence]; seen {
				require.Equal(t, digest, next.Digest())
			}
			keys[sequence], current = next.Digest(), next
		}
	})
}
