package statement_test

import (
	"crypto"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/statement"
)

func TestCompareViews(t *testing.T) {
	a := statement.View{Source: "its endpoint", Sequence: 7, Ordered: true, Keys: [32]byte{1}, Statement: [32]byte{1}}
	for _, test := range []struct {
		name   string
		change func(*statement.View)
		text   string
	}{
		{"the same", func(*statement.View) {}, ""},
		{"another sequence", func(v *statement.View) { v.Sequence, v.Keys = 8, [32]byte{2} }, ""},
		{"no sequence", func(v *statement.View) { v.Ordered, v.Keys = false, [32]byte{2} }, ""},
		{"no statement", func(v *statement.View) { v.Statement = [32]byte{} }, ""},
		{"other keys", func(v *statement.View) { v.Keys = [32]byte{2} },
			"under sequence 7 its endpoint shows the keys 0100000000000000, and a hub 0200000000000000"},
		{"another statement", func(v *statement.View) { v.Statement = [32]byte{2} },
			"under sequence 7 its endpoint and a hub show the same keys and different statements"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := a
			b.Source = "a hub"
			test.change(&b)
			err := statement.CompareViews(a, b)
			var split *statement.SplitView
			if test.text == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorAs(t, err, &split)
			require.EqualError(t, err, test.text)
			require.ErrorAs(t, statement.CompareViews(b, a), &split, "it does not depend on the order")
		})
	}
}

func TestFollowChain(t *testing.T) {
	c := bundletest.NewChain(t)
	c.Add(1, "a", "a")
	c.Add(2, "a", "a", "b")
	c.Add(3, "b", "b")
	c.Add(4, "b", "b", "c")
	l := c.List
	forged := bundletest.NewChain(t) // other keys of the same names, as one who holds no key has
	forged.List = slices.Clip(l[:2])
	fork := c.Fork(2) // by one who holds the keys
	other := fork.Claims(3, "b")
	other.Keys[0]++
	split := fork.Sign(other, "a")
	restarted := c.Fork(0)
	restart := restarted.Claims(3, "z")
	restart.Start = statement.StartNoSigner
	started := restarted.Sign(restart, "z")
	restarted.List = []*statement.Statement{started}
	seen := func(sequence uint64) (statement.View, bool) {
		return statement.View{
			Source:   "the endpoint",
			Sequence: sequence,
			Ordered:  true,
			Keys:     c.Claims(sequence).Keys,
		}, sequence <= 3
	}
	signers := func(kid string) map[string]crypto.PublicKey {
		return map[string]crypto.PublicKey{kid: &c.Key(kid).PublicKey}
	}
	for _, test := range []struct {
		name       string
		known      statement.Known
		statements []*statement.Statement
		until      uint64
		newest     *statement.Statement
		taken      int
		broken     error
		restart    *statement.Statement
		split      bool
	}{
		{"all from nothing", statement.Known{}, l, 4, l[3], 4, nil, nil, false},
		{"what was skipped is made up for", statement.Known{Newest: l[0]}, l[1:], 4, l[3], 3, nil, nil, false},
		{"no further than what is stored", statement.Known{Newest: l[0]}, l[1:], 2, l[1], 1, nil, nil, false},
		{"nothing new", statement.Known{Newest: l[3]}, l, 4, l[3], 0, nil, nil, false},
		{"none yet", statement.Known{Newest: l[1]}, nil, 3, l[1], 0, nil, nil, false},
		{"the first, by the version before", statement.Known{Signers: signers("a"), SignedFrom: 2}, l[1:2], 2, l[1], 1,
			nil, nil, false},
		{"the first, by a key that it had not", statement.Known{Signers: signers("b"), SignedFrom: 2}, l[1:2], 2, l[1],
			1, statement.ErrSigner, nil, false},
		{"a gap", statement.Known{Newest: l[0]}, l[2:], 4, l[3], 2, statement.ErrLink, nil, false},
		{"a forged one proves nothing", statement.Known{Newest: l[1]}, []*statement.Statement{forged.Add(3, "b",
			"b")}, 3, l[1], 0, statement.ErrSignature, nil, false},
		{"a chain that starts again", statement.Known{Newest: l[1]},
			[]*statement.Statement{started, restarted.Add(4, "z", "z")}, 4, restarted.List[1], 2, nil, started, false},
		{"other keys than were shown", statement.Known{Newest: l[1], Seen: seen}, []*statement.Statement{split}, 3,
			split, 1, nil, nil, true},
		{"and a true one", statement.Known{Newest: l[1], Seen: seen}, l, 3, l[2], 1, nil, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.known.TrustDomain = bundletest.ChainDomain
			f := statement.Follow(test.known, test.statements, test.until)
			require.Equal(t, test.newest, f.Newest)
			require.Len(t, f.Taken, test.taken)
			require.ErrorIs(t, f.Broken, test.broken)
			require.Equal(t, test.restart, f.Restart)
			require.Equal(t, test.split, f.Split != nil)
		})
	}
	f := statement.Follow(statement.Known{TrustDomain: spiffeid.RequireTrustDomainFromString("us.example.org")}, l, 4)
	require.ErrorIs(t, f.Broken, statement.ErrLink, "statements of another domain")
	require.Empty(t, f.Taken)
}
