package routing

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/plan"
)

// TestRegisteredAgainUnderAnotherLease: a control plane that lost its lease registers its instances under another, at the addresses
// that they have. Whichever lease comes first by name, what it says now counts, for callers here and in other clusters.
func TestRegisteredAgainUnderAnotherLease(t *testing.T) {
	const reason = "another registration at its address counts, under another lease"
	for range 8 { // names of leases are drawn
		r := newRoom(t)
		r.Leases().Reset()
		set := func(health ententev1.Health) []*ententev1.Instance {
			list := several("shop", 2, 1)
			for _, i := range list {
				i.Health = health
			}
			return list
		}
		healths := func() (in []plan.Health, out []string) {
			planned, err := r.Plan(r.store.View(), "shop", plan.Locality{Region: "eu-west-1", Zone: "a"})
			require.NoError(t, err)
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
		var holders []*holder
		for n, health := range []ententev1.Health{ententev1.Health_HEALTH_DEGRADED, ententev1.Health_HEALTH_HEALTHY} {
			h, err := r.hold(t, local, tenSeconds())
			require.NoError(t, err)
			_, err = r.replace(t, local, &ententev1.ReplaceTarget{Lease: h.secret}, set(health))
			require.NoError(t, err)
			in, _ := healths()
			require.Equal(t, []plan.Health{plan.Health(health), plan.Health(health)}, in, "registration %d", n)
			holders = append(holders, h)
			r.pass(time.Second)
		}
		_, out := healths()
		require.Equal(t, []string{reason, reason}, out)

		// What has a lease counts: the newer one runs out, and the older one is still held.
		r.sweeps(t, &sweeper{Manager: r.Manager}, 30, func() {
			_, err := holders[0].ask(&ententev1.HoldLeaseRequest{})
			require.NoError(t, err)
		})
		in, _ := healths()
		require.Equal(t, []plan.Health{plan.Degraded, plan.Degraded}, in)
	}
}
