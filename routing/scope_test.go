package routing

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/routingtest"
	"github.com/ententehq/entente/trust"
)

// TestHintsFollowTheScope: hints, simulated hints and plans for xDS leave out the same instances without a mention, for
// callers who see all domains, one of two, or none. A cached hint is not given to callers with another scope.
func TestHintsFollowTheScope(t *testing.T) {
	r := newFixture(t)
	r.setTrust(t, "us.example.org", trust.Fresh)
	for address, id := range map[string]spiffeid.ID{
		"10.0.0.1:80": euWorkload, "10.0.0.2:80": usWorkload, "10.0.0.3:80": usWorkload,
	} {
		i := routingtest.Registration()
		i.Address, i.SpiffeId = address, id.String()
		_, err := r.RegisterInstance(routingtest.Admin(t), &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(t, err)
	}
	for round := range 2 { // the second from what is kept
		for _, test := range []struct {
			sees string
			want int
		}{{"eu.example.org us.example.org", 3}, {"eu.example.org", 1}, {"us.example.org", 2}, {"", 0}} {
			sees := func(td spiffeid.TrustDomain) bool { return slices.Contains(strings.Fields(test.sees), td.Name()) }
			ctx := context.WithValue(routingtest.Admin(t), scopeKey{}, access.NewScope(test.sees, sees))
			h, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "shop", Locality: euCaller.Proto()})
			require.NoError(t, err)
			require.Equal(t, test.want, offeredIn(h), "round %d, %q", round, test.sees)
			require.Empty(t, h.GetExcluded())
			simulated, err := r.SimulateHint(
				ctx,
				&ententev1.SimulateHintRequest{Service: "shop", Locality: euCaller.Proto()},
			)
			require.NoError(t, err)
			require.Equal(t, test.want, offeredIn(simulated.GetHint()))
			planned, _, err := r.PlanFor(r.store.View(), "shop", euCaller, sees)
			require.NoError(t, err)
			require.Equal(t, test.want, offeredIn(planned.Hint("shop", euCaller, 1)))
		}
	}
}

func offeredIn(h *ententev1.Hint) (n int) {
	for _, p := range h.GetPriorities() {
		for _, l := range p.GetLocalities() {
			n += len(l.GetEndpoints())
		}
	}
	return n
}

// TestAffected lists the services whose plans a change affects. The registry has a test for its own tables.
func TestAffected(t *testing.T) {
	r := newFixture(t)
	for _, test := range []struct {
		table, key string
		want       []string
		known      bool
	}{
		{registry.Instances.Name(), "shop/-/0/10.0.0.1:80", []string{"shop"}, true},
		{ruleTable.Name(), "shop", []string{"shop"}, true},
		{ruleTable.Name(), plan.AllServices, []string{plan.AllServices}, false},
		{trustTable.Name(), "us.example.org", nil, false},
	} {
		got, known := r.Affected(r.store.View(), raftstore.Change{Table: test.table, Key: test.key})
		require.Equal(t, test.known, known, "%s %s", test.table, test.key)
		require.Equal(t, test.want, got, "%s %s", test.table, test.key)
	}
}
