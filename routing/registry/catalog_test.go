package registry

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/routingtest"
)

// TestRegisteredAgainUnderAnotherLease: a control plane that lost its lease registers its instances under another one,
// at the same addresses. The newer registration counts, for callers here and in other clusters, whatever the IDs of the
// leases are.
func TestRegisteredAgainUnderAnotherLease(t *testing.T) {
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
			_, err = m.replace(t, routingtest.Local, &ententev1.ReplaceTarget{Lease: h.secret}, set(health))
			require.NoError(t, err)
			in, _ := healths()
			require.Equal(t, []plan.Health{plan.Health(health), plan.Health(health)}, in, "registration %d", n)
			holders = append(holders, h)
			m.clock.Pass(time.Second)
		}
		_, out := healths()
		require.Equal(t, []string{reason, reason}, out)

		// The newer lease runs out and the older one is held, so the older registration counts.
		m.sweeps(t, 30, func() {
			_, err := holders[0].send(&ententev1.KeepLeaseRequest{})
			require.NoError(t, err)
		})
		in, _ := healths()
		require.Equal(t, []plan.Health{plan.Degraded, plan.Degraded}, in)
	}
}
