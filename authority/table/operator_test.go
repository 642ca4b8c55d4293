package table_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/plan"
)

// TestOperatorActions covers the operator actions, and their refusals, for each state of an authority.
func TestOperatorActions(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	member := func(id string, kind plan.Kind, state plan.State, anchor string) plan.Authority {
		return plan.Authority{
			ID: id, Member: "a", Kind: kind, State: state, Anchor: anchor,
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		}
	}
	all := []plan.Authority{
		member("old", plan.X509, plan.Retiring,
			"root"), member("now", plan.X509, plan.Active, "root"), member("next", plan.X509, plan.Prepared, "root 2"),
		member("jwt-old", plan.JWT, plan.Tainted,
			""), member("jwt-now", plan.JWT, plan.Active, ""), member("jwt-next", plan.JWT, plan.Prepared, ""),
		member("jwt-gone", plan.JWT, plan.Revoked, ""),
	}
	early := member("early", plan.JWT, plan.Prepared, "")
	early.NotBefore = now.Add(90 * time.Second)
	late := member("late", plan.JWT, plan.Prepared, "")
	late.NotAfter = now
	all = append(all, early, late)

	words := map[string]func(id string) ([]plan.Action, error){
		"taint":    func(id string) ([]plan.Action, error) { return plan.TaintAuthority(all, id) },
		"revoke":   func(id string) ([]plan.Action, error) { return plan.RevokeAuthority(all, id) },
		"activate": func(id string) ([]plan.Action, error) { return plan.ActivateAuthority(all, id, now) },
	}
	for _, c := range []struct {
		word, id string
		want     []plan.Action
		refused  string
	}{
		{
			"taint", "now", []plan.Action{{Do: plan.Taint, Kind: plan.X509, ID: "now", Why: "an operator tainted it"}},
			"",
		},
		{
			"taint", "old", []plan.Action{{Do: plan.Taint, Kind: plan.X509, ID: "old", Why: "an operator tainted it"}},
			"",
		},
		{
			"taint", "next",
			[]plan.Action{{Do: plan.End, Kind: plan.X509, ID: "next", Why: "an operator tainted it, and it never " +
				"signed"}},
			"",
		},
		{"taint", "jwt-old", nil, ""},
		{"taint", "jwt-gone", nil, "authority jwt-gone is revoked, which is more than tainted"},
		{"taint", "nobody", nil, "there is no authority nobody; see 'entente authority list'"},
		{
			"revoke", "jwt-old",
			[]plan.Action{{Do: plan.Revoke, Kind: plan.JWT, ID: "jwt-old", Why: "an operator revoked it"}}, "",
		},
		{"revoke", "jwt-gone", nil, ""},
		{
			"revoke", "next",
			[]plan.Action{{Do: plan.Revoke, Kind: plan.X509, ID: "next", Why: "an operator revoked it"}}, "",
		},
		{"revoke", "now", []plan.Action{
			{
				Do: plan.Revoke, Kind: plan.X509, ID: "old",
				Why: "an operator revoked authority now, which is below the same anchor",
			},
			{Do: plan.Revoke, Kind: plan.X509, ID: "now", Why: "an operator revoked it"},
		}, ""},
		{"revoke", "nobody", nil, "there is no authority nobody; see 'entente authority list'"},
		{"activate", "jwt-next", []plan.Action{
			{Do: plan.Activate, Kind: plan.JWT, ID: "jwt-next", Why: "an operator activated it"},
			{Do: plan.Retire, Kind: plan.JWT, ID: "jwt-now", Why: "its successor is active"},
		}, ""},
		{"activate", "old", nil, "authority old is retiring; only a prepared one can be activated"},
		{"activate", "early", nil, "authority early becomes valid in 1m30s; what it signed before would be refused"},
		{"activate", "late", nil, "authority late has expired"},
		{"activate", "nobody", nil, "there is no authority nobody; see 'entente authority list'"},
	} {
		got, err := words[c.word](c.id)
		if c.refused != "" {
			require.EqualError(t, err, c.refused, "%s %s", c.word, c.id)
			continue
		}
		require.NoError(t, err, "%s %s", c.word, c.id)
		require.Equal(t, c.want, got, "%s %s", c.word, c.id)
	}
}

// TestRevokeAnUpstreamsAnchor: all authorities below it are revoked, but the last anchor below which a member can sign
// only with force.
func TestRevokeAnUpstreamsAnchor(t *testing.T) {
	below := func(id, member, anchor string, state plan.State) plan.Authority {
		return plan.Authority{
			ID: id, Member: member, Kind: plan.X509, State: state,
			Anchor: anchor, UpstreamAnchor: true,
		}
	}
	all := []plan.Authority{
		below("a1", "a", "old root",
			plan.Revoked), below("a2", "a", "old root", plan.Active), below("b1", "b", "old root", plan.Retiring),
		{ID: "jwt", Member: "a", Kind: plan.JWT, State: plan.Active},
	}
	want := []plan.Action{
		{Do: plan.Revoke, Kind: plan.X509, ID: "a1", Why: "an operator revoked its anchor"},
		{Do: plan.Revoke, Kind: plan.X509, ID: "a2", Why: "an operator revoked its anchor"},
		{Do: plan.Revoke, Kind: plan.X509, ID: "b1", Why: "an operator revoked its anchor"},
	}
	_, err := plan.RevokeAnchor(all, "old root", false)
	require.EqualError(t, err,
		"no member could sign X509-SVIDs without this anchor: make a new issuer the default in the upstream, then "+
			"'entente authority rotate', and revoke this anchor once an authority below the new one is active; or "+
			"give --force")
	forced, err := plan.RevokeAnchor(all, "old root", true)
	require.NoError(t, err)
	require.Equal(t, want, forced)

	got, err := plan.RevokeAnchor(append(all, below("b2", "b", "new root", plan.Active)), "old root", false)
	require.NoError(t, err)
	require.Equal(t, want, got)

	// Of one revoked authority the upstream's root stays, and so do its neighbours.
	got, err = plan.RevokeAuthority(all, "a2")
	require.NoError(t, err)
	require.Equal(t, []plan.Action{{Do: plan.Revoke, Kind: plan.X509, ID: "a2", Why: "an operator revoked it"}}, got)
}

// TestNothingNewBelowASuspectAnchor: what was prepared below the root of a tainted authority never signs.
func TestNothingNewBelowASuspectAnchor(t *testing.T) {
	s := newSimulation(defaults())
	s.member("a")
	s.settle()
	now := s.now
	all := s.all()
	i := 0
	for all[i].Kind != plan.X509 {
		i++
	}
	tainted, prepared := all[i], all[i]
	tainted.State, tainted.Retired = plan.Tainted, now
	prepared.ID, prepared.State, prepared.Number, prepared.Ready = "next", plan.Prepared, 2, now.Add(time.Hour)
	situation := s.situation(s.member("a"))
	situation.Authorities = []plan.Authority{tainted, prepared}
	actions, _ := plan.Next(situation)
	require.Equal(t, []plan.Action{
		{
			Do: plan.End, Kind: plan.X509, ID: "next",
			Why: "an authority below the same anchor was tainted, and this one never signed",
		},
		{Do: plan.Prepare, Kind: plan.X509, Why: "this member has none", NewAnchor: true},
		{Do: plan.Prepare, Kind: plan.JWT, Why: "this member has none"},
	}, actions)
}
