package plan

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestJWTKeysAreAhead: the key of a JWT authority is published for a quarter of its life before it takes over, however
// often keys were replaced before, and whenever its member noticed that it is due.
func TestJWTKeysAreAhead(t *testing.T) {
	const life = 90 * 24 * time.Hour
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for name, late := range map[string]time.Duration{"in time": 0, "a day late": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			now := start
			s := Situation{Member: "eu-1", Settings: defaults(), Keyless: func(string) bool { return false }}
			prepared := uint64(0)
			prepare := func(a Action) {
				prepared++
				s.Authorities = append(s.Authorities, Authority{
					ID: now.Format(time.RFC3339), Member: "eu-1", Kind: JWT, State: Prepared, NotBefore: now,
					NotAfter: now.Add(life), Ready: now.Add(15 * time.Minute), PublishedAt: now,
					Number: prepared, LongestSVID: DefaultJWTSVIDTTL, Ahead: a.Ahead,
				})
			}
			takeovers := 0
			for range 100 {
				s.Now = now
				actions, next := planKind(s, JWT)
				for _, action := range actions {
					for i := range s.Authorities {
						a := &s.Authorities[i]
						switch {
						case a.ID != action.ID:
						case action.Do == Activate:
							require.False(t, action.Alarm)
							if takeovers++; takeovers > 1 {
								require.GreaterOrEqual(t, now.Sub(a.PublishedAt), JWTLead(life))
							}
							a.State = Active
						case action.Do == Retire:
							a.State, a.Retired = Retiring, now
						}
					}
					if action.Do == End {
						ended := func(a Authority) bool { return a.ID == action.ID }
						s.Authorities = slices.DeleteFunc(s.Authorities, ended)
					}
					if action.Do == Prepare {
						require.False(t, action.Held)
						prepare(action)
					}
				}
				if len(actions) == 0 {
					require.True(t, next.After(now))
					now = next.Add(late)
				}
			}
			require.Greater(t, takeovers, 10)
		})
	}
}

// TestRotationReplacesKeysAhead: what lay on a disk for weeks does not take over when an operator requests new ones,
// and a reserve that an operator requested is made then.
func TestRotationReplacesKeysAhead(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	s := Situation{Now: now, Member: "eu-1", Settings: defaults(), Keyless: func(string) bool { return false }}
	s.Authorities = []Authority{
		{ID: "present", Member: "eu-1", Kind: JWT, State: Active, Number: 1, NotBefore: now.Add(-30 * 24 * time.Hour),
			NotAfter: now.Add(60 * 24 * time.Hour)},
		{ID: "next", Member: "eu-1", Kind: JWT, State: Prepared, Number: 2, NotBefore: now.Add(-7 * 24 * time.Hour),
			PublishedAt: now.Add(-7 * 24 * time.Hour), NotAfter: now.Add(83 * 24 * time.Hour), Ahead: true},
	}
	actions, next := planKind(s, JWT)
	require.Empty(t, actions)
	require.Equal(t, now.Add(15*24*time.Hour+12*time.Hour), next)
	const ended = "an operator requested a new one, and this one never signed"
	s.Rotations.Last = 1
	actions, _ = planKind(s, JWT)
	require.Equal(t, []Action{
		{Do: End, Kind: JWT, ID: "next", Why: ended},
		{Do: Prepare, Kind: JWT, Why: "an operator requested a rotation"},
	}, actions)
	s.Rotations = Rotations{Reserve: 1}
	actions, _ = planKind(s, JWT)
	require.Equal(t, []Action{
		{Do: End, Kind: JWT, ID: "next", Why: ended},
		{Do: Prepare, Kind: JWT, Why: "an operator requested one in reserve", Held: true, Ahead: true},
	}, actions)
}

// TestKeysAheadWaitForOlderMembers: while a member's build does not know keys that are published ahead, JWT authorities
// are replaced as they are there: at half of their life, and reserves are as those for X.509.
func TestKeysAheadWaitForOlderMembers(t *testing.T) {
	begin, life := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), 80*24*time.Hour
	present := Authority{ID: "present", Member: "eu-1", Kind: JWT, State: Active, Number: 1, NotBefore: begin,
		NotAfter: begin.Add(life)}
	for name, c := range map[string]struct {
		after   time.Duration
		reserve uint64
		older   bool
		want    []Action
	}{
		"a third of its life": {after: life / 3, want: []Action{
			{Do: Prepare, Kind: JWT, Why: "its key is published long before it takes over", Ahead: true}}},
		"a third of its life, an older member": {after: life / 3, older: true},
		"half of its life, an older member": {after: life / 2, older: true, want: []Action{
			{Do: Prepare, Kind: JWT, Why: "half of the life of the active one has passed"}}},
		"a reserve": {reserve: 1, want: []Action{
			{Do: Prepare, Kind: JWT, Why: "an operator requested one in reserve", Held: true, Ahead: true}}},
		"a reserve, an older member": {reserve: 1, older: true, want: []Action{
			{Do: Prepare, Kind: JWT, Why: "an operator requested one in reserve", Held: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			actions, next := planKind(Situation{
				Now: begin.Add(c.after), Member: "eu-1", Settings: defaults(), Older: c.older,
				Rotations: Rotations{Reserve: c.reserve}, Authorities: []Authority{present},
				Keyless: func(string) bool { return false },
			}, JWT)
			require.Equal(t, c.want, actions)
			if len(c.want) == 0 {
				require.Equal(t, present.renewal(), next)
			}
		})
	}
}

// TestDistrustEndsKeysAhead: with any key of a member that is distrusted, the key that the member publishes ahead ends,
// since a thief of the one had access to the other. A reserve that an operator requested stays, and so do the keys of
// other members and those below an anchor of an upstream that is revoked.
func TestDistrustEndsKeysAhead(t *testing.T) {
	const why = "another key of its member is distrusted, and it never signed"
	of := func(member string, upstream bool) []Authority {
		return []Authority{
			{ID: member + "/x509", Member: member, Kind: X509, State: Active, Anchor: member, UpstreamAnchor: upstream},
			{ID: member + "/jwt", Member: member, Kind: JWT, State: Active},
			{ID: member + "/next", Member: member, Kind: JWT, State: Prepared, Ahead: true},
			{ID: member + "/reserve", Member: member, Kind: JWT, State: Prepared, Ahead: true, Held: true},
		}
	}
	all := append(of("eu-1", false), of("eu-2", false)...)
	ended := func(actions []Action, err error) (ids []string) {
		require.NoError(t, err)
		for _, a := range actions {
			if a.Do == End {
				require.Equal(t, why, a.Why)
				ids = append(ids, a.ID)
			}
		}
		return ids
	}
	require.Equal(t, []string{"eu-1/next"}, ended(TaintAuthority(all, "eu-1/x509")))
	require.Equal(t, []string{"eu-1/next"}, ended(TaintAuthority(all, "eu-1/jwt")))
	require.Equal(t, []string{"eu-2/next"}, ended(RevokeAuthority(all, "eu-2/x509")))
	require.Equal(t, []string{"eu-2/next"}, ended(RevokeAuthority(all, "eu-2/jwt")))
	require.Equal(t, []string{"eu-2/next"}, ended(RevokeAnchor(all, "eu-2", false)))
	require.Empty(t, ended(RevokeAnchor(of("eu-1", true), "eu-1", true)), "members have no key of an upstream")
	require.Equal(t, []string{"eu-1/next"}, ended(RevokeAuthority(of("eu-1", true), "eu-1/x509")))
}
