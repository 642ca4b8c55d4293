package bundle_test

import (
	"crypto"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

func TestCompareViews(t *testing.T) {
	a := bundle.View{Source: "its endpoint", Sequence: 7, Ordered: true, Keys: [32]byte{1}, Statement: [32]byte{1}}
	for _, test := range []struct {
		name   string
		change func(*bundle.View)
		text   string
	}{
		{"the same", func(*bundle.View) {}, ""},
		{"another sequence", func(v *bundle.View) { v.Sequence, v.Keys = 8, [32]byte{2} }, ""},
		{"no sequence", func(v *bundle.View) { v.Ordered, v.Keys = false, [32]byte{2} }, ""},
		{"no statement", func(v *bundle.View) { v.Statement = [32]byte{} }, ""},
		{"other keys", func(v *bundle.View) { v.Keys = [32]byte{2} },
			"under sequence 7 its endpoint shows the keys 0100000000000000, and a hub 0200000000000000"},
		{"another statement", func(v *bundle.View) { v.Statement = [32]byte{2} },
			"under sequence 7 its endpoint and a hub show the same keys and different statements"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := a
			b.Source = "a hub"
			test.change(&b)
			err := bundle.CompareViews(a, b)
			var split *bundle.SplitView
			if test.text == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorAs(t, err, &split)
			require.EqualError(t, err, test.text)
			require.Error(t, bundle.CompareViews(b, a), "it does not depend on the order")
		})
	}
}

func TestFollowChain(t *testing.T) {
	c := newChain(t)
	c.add(1, "a", "a")
	c.add(2, "a", "a", "b")
	c.add(3, "b", "b")
	c.add(4, "b", "b", "c")
	l := c.list
	forged := newChain(t) // other keys of the same names, as one who holds no key has
	forged.list = slices.Clip(l[:2])
	fork := &chain{t: t, keys: c.keys, list: slices.Clip(l[:2])} // by one who holds the keys
	other := fork.claims(3, "b")
	other.Keys[0]++
	split := fork.sign(other, "a")
	anew := &chain{t: t, keys: c.keys}
	restart := anew.claims(3, "z")
	restart.Start = bundle.StartNoSigner
	started := anew.sign(restart, "z")
	anew.list = []*bundle.Statement{started}
	seen := func(sequence uint64) (bundle.View, bool) {
		return bundle.View{Source: "the endpoint", Sequence: sequence, Ordered: true, Keys: c.claims(sequence).Keys}, sequence <= 3
	}
	signers := func(kid string) map[string]crypto.PublicKey {
		return map[string]crypto.PublicKey{kid: &c.key(kid).PublicKey}
	}
	for _, test := range []struct {
		name       string
		known      bundle.Known
		statements []*bundle.Statement
		until      uint64
		newest     *bundle.Statement
		taken      int
		broken     error
		restart    *bundle.Statement
		split      bool
	}{
		{"all from nothing", bundle.Known{}, l, 4, l[3], 4, nil, nil, false},
		{"what was skipped is made up for", bundle.Known{Newest: l[0]}, l[1:], 4, l[3], 3, nil, nil, false},
		{"no further than what is stored", bundle.Known{Newest: l[0]}, l[1:], 2, l[1], 1, nil, nil, false},
		{"nothing new", bundle.Known{Newest: l[3]}, l, 4, l[3], 0, nil, nil, false},
		{"none yet", bundle.Known{Newest: l[1]}, nil, 3, l[1], 0, nil, nil, false},
		{"the first, by the version before", bundle.Known{Signers: signers("a"), SignedFrom: 2}, l[1:2], 2, l[1], 1, nil, nil, false},
		{"the first, by a key that it had not", bundle.Known{Signers: signers("b"), SignedFrom: 2}, l[1:2], 2, l[1], 1, bundle.ErrStatementSigner, nil, false},
		{"a gap", bundle.Known{Newest: l[0]}, l[2:], 4, l[3], 2, bundle.ErrStatementLink, nil, false},
		{"a forged one is nobody's word", bundle.Known{Newest: l[1]}, []*bundle.Statement{forged.add(3, "b", "b")}, 3, l[1], 0, bundle.ErrStatementSignature, nil, false},
		{"a chain that starts anew", bundle.Known{Newest: l[1]}, []*bundle.Statement{started, anew.add(4, "z", "z")}, 4, anew.list[1], 2, nil, started, false},
		{"other keys than were shown", bundle.Known{Newest: l[1], Seen: seen}, []*bundle.Statement{split}, 3, split, 1, nil, nil, true},
		{"and a true one", bundle.Known{Newest: l[1], Seen: seen}, l, 3, l[2], 1, nil, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.known.TrustDomain = chained
			f := bundle.FollowChain(test.known, test.statements, test.until)
			require.Equal(t, test.newest, f.Newest)
			require.Len(t, f.Taken, test.taken)
			require.ErrorIs(t, f.Broken, test.broken)
			require.Equal(t, test.restart, f.Restart)
			require.Equal(t, test.split, f.Split != nil)
		})
	}
	f := bundle.FollowChain(bundle.Known{TrustDomain: spiffeid.RequireTrustDomainFromString("us.example.org")}, l, 4)
	require.ErrorIs(t, f.Broken, bundle.ErrStatementLink, "statements of another domain")
	require.Empty(t, f.Taken)
}
