package xds

import (
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/trust/standing"
)

// TestReturning: instances of a domain that can be verified again wait until clients have its roots. Those of a domain
// that always could be, and those that were left out for their health, do not.
func TestReturning(t *testing.T) {
	at, err := plan.ParseLocality("eu/a")
	require.NoError(t, err)
	planned := func(us standing.State, lines ...string) plan.Plan {
		list := readEndpoints(t, lines...)
		for i := range list {
			if list[i].ID == usID {
				list[i].Trust = us
			}
		}
		return plan.DefaultPolicy().Plan(at, list)
	}
	both := []string{"1 eu/a healthy", "2 us/a healthy"}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := returning{absent: map[spiffeid.TrustDomain]time.Time{}, until: map[spiffeid.TrustDomain]time.Time{}}
	for _, step := range []struct {
		what  string
		after time.Duration
		plan  plan.Plan
		early bool
	}{
		{"known from the start", 0, planned(standing.Fresh, both...), false},
		{"unhealthy", 0, planned(standing.Fresh, "1 eu/a healthy", "2 us/a unhealthy"), false},
		{"healthy again", 0, planned(standing.Fresh, both...), false},
		{"suspended", time.Second, planned(standing.Suspended, both...), false},
		{"another service, without the domain", 0, planned(standing.Fresh, "1 eu/a healthy"), false},
		{"resumed", time.Second, planned(standing.Fresh, both...), true},
		{"planned again meanwhile", rootsLead - 1, planned(standing.Fresh, both...), true},
		{"due", 1, planned(standing.Fresh, both...), false},
		{"and it stays", time.Hour, planned(standing.Stale, both...), false},
		{"suspended again", 0, planned(standing.Suspended, both...), false},
		{"resumed again", 0, planned(standing.Fresh, both...), true},
		{"suspended before it is due", 1, planned(standing.Suspended, both...), false},
		{"resumed after that", rootsLead, planned(standing.Fresh, both...), true},
		{"due at last", rootsLead, planned(standing.Fresh, both...), false},
		{"suspended, and nobody subscribes", 0, planned(standing.Suspended, both...), false},
		{"long resumed when it is planned", recheck + rootsLead, planned(standing.Fresh, both...), false},
	} {
		now = now.Add(step.after)
		require.Equal(t, step.early, b.observe(step.plan, now), step.what)
		require.Equal(t, !step.early, b.due(usID.TrustDomain(), now) || step.plan.Excluded != nil, step.what)
	}
	require.Empty(t, b.until)
	require.Empty(t, b.absent)
}
