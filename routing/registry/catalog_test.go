package registry

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/routingtest"
)

// TestUploadedAgainUnderAnotherLease: a control plane that lost its lease uploads its instances under another one, at
// the same addresses. They take nothing from the earlier lease while that is renewed, and count when it has run out,
// for callers here and in other clusters, whatever the IDs of the leases are.
func TestUploadedAgainUnderAnotherLease(t *testing.T) {
	const reason = "another registration at its address counts, under another lease"
	for range 8 { // names of leases are drawn
		m := newMember(t)
		m.Tracker.Reset()
		set := func(health ententev1.Health) []*ententev1.Instance {
			list := routingtest.Several("shop", 2, 1)
			for _, i := range list {
				i.Health = health
			}
			return list
		}
		healths := func() (in []plan.Health, out []string) {
			planned := m.plan(t, "shop", plan.Locality{Region: "eu-west-1", Zone: "a"})
			for _, p := range planned.Priorities {
				for _, l := range p.Localities {
					for _, e := range l.Endpoints {
						in = append(in, e.Health)
					}
				}
			}
			for _, x := range planned.Excluded {
				out = append(out, x.Reason)
			}
			return in, out
		}
		var holders []*holderClient
		for n, health := range []ententev1.Health{ententev1.Health_HEALTH_DEGRADED, ententev1.Health_HEALTH_HEALTHY} {
			h, err := m.hold(t, routingtest.Local, tenSeconds())
			require.NoError(t, err)
			done, err := m.replace(t, routingtest.Local, &ententev1.ReplaceTarget{Lease: h.secret}, set(health))
			require.NoError(t, err)
			require.EqualValues(t, 2*n, done.GetOutranked())
			in, _ := healths()
			require.Equal(t, []plan.Health{plan.Degraded, plan.Degraded}, in, "registration %d", n)
			holders = append(holders, h)
			m.clock.Pass(time.Second)
		}
		_, out := healths()
		require.Equal(t, []string{reason, reason}, out)

		// The older lease runs out and the newer one is held, so the newer registration counts.
		m.sweeps(t, 30, func() {
			_, err := holders[1].send(&ententev1.KeepLeaseRequest{})
			require.NoError(t, err)
		})
		in, _ := healths()
		require.Equal(t, []plan.Health{plan.Healthy, plan.Healthy}, in)
	}
}
