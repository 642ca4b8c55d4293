package publish

import (
	"crypto/ecdsa"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/bundle/statement"
)

func TestChooseSigner(t *testing.T) {
	public := map[string]*ecdsa.PublicKey{}
	named := func(ids ...string) map[string]*ecdsa.PublicKey {
		m := map[string]*ecdsa.PublicKey{}
		for _, id := range ids {
			if public[id] == nil {
				key, err := keys.Generate()
				require.NoError(t, err)
				public[id] = key.Public().(*ecdsa.PublicKey)
			}
			m[id] = public[id]
		}
		return m
	}
	previous := func(ids ...string) *statement.Statement {
		s, err := statement.New(
			statement.Claims{
				TrustDomain: home, Sequence: 1, Start: statement.StartFirst, Issued: time.Unix(1, 0),
				Next: named(ids...),
			},
			"x",
			func([]byte) ([]byte, error) { return make([]byte, 64), nil },
		)
		require.NoError(t, err)
		return s
	}
	jwt := func(id, member string, number uint64, state plan.State) plan.Authority {
		return plan.Authority{ID: id, Member: member, Kind: plan.JWT, Number: number, State: state}
	}
	for _, test := range []struct {
		name        string
		previous    *statement.Statement
		first       bool
		version     map[string]*ecdsa.PublicKey
		authorities []plan.Authority
		want        choice
	}{
		{
			"a first version", nil, true, named("a"), []plan.Authority{jwt("a", "me", 1, plan.Active)},
			choice{kid: "a", start: statement.StartFirst},
		},
		{
			"its own oldest", previous("a", "b"), false, named("a", "b"),
			[]plan.Authority{jwt("b", "me", 2, plan.Active), jwt("a", "me", 1, plan.Retiring)}, choice{kid: "a"},
		},
		{
			"not a new one", previous("a"), false, named("a", "b"),
			[]plan.Authority{jwt("a", "you", 1, plan.Active), jwt("b", "me", 1, plan.Active)}, choice{wait: true},
		},
		{
			"not a tainted one", previous("a", "b"), false, named("a", "b"),
			[]plan.Authority{jwt("a", "me", 1, plan.Tainted), jwt("b", "me", 2, plan.Active)}, choice{kid: "b"},
		},
		{
			"not one of another kind", previous("a"), false, named("b"),
			[]plan.Authority{
				{ID: "a", Member: "me", Kind: plan.X509, State: plan.Active}, jwt("b", "me", 2, plan.Active),
			},
			choice{kid: "b", start: statement.StartNoSigner},
		},
		{
			"a lost member is not awaited", previous("a"), false, named("b"),
			[]plan.Authority{jwt("a", "lost", 1, plan.Active), jwt("b", "me", 2, plan.Active)},
			choice{kid: "b", start: statement.StartNoSigner},
		},
		{
			"all were revoked", previous("a"), false, named("b"),
			[]plan.Authority{jwt("a", "me", 1, plan.Revoked), jwt("b", "you", 2, plan.Active)},
			choice{start: statement.StartNoSigner, wait: true},
		},
		{
			"none before", nil, false, named("b"), []plan.Authority{jwt("b", "me", 2, plan.Active)},
			choice{kid: "b", start: statement.StartUnstated},
		},
		{"no key at all", previous("a"), false, named(), nil, choice{start: statement.StartNoSigner}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := chooseSigner(
				test.previous,
				test.first,
				test.version,
				test.authorities,
				func(a plan.Authority) holder {
					return map[string]holder{"me": heldHere, "you": heldByOther}[a.Member]
				},
			)
			require.Equal(t, fmt.Sprintf("%+v", test.want), fmt.Sprintf("%+v", got))
		})
	}
}
