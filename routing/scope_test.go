package routing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/routingtest"
	"github.com/ententehq/entente/trust/standing"
)

// TestHintsFollowTheScope: hints, simulated hints and plans for xDS leave out the same instances without a mention, for
// callers who see all domains, one of two, or none. A cached hint is not given to callers with another scope.
func TestHintsFollowTheScope(t *testing.T) {
	r := newFixture(t)
	r.setTrust(t, "us.example.org", standing.Fresh)
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

// TestQueriesFollowTheScope: what a caller does not see in a hint it does not see in a list of services, in a service,
// or in a list of leases.
func TestQueriesFollowTheScope(t *testing.T) {
	r := newFixture(t)
	for address, id := range map[string]spiffeid.ID{"10.0.0.1:80": euWorkload, "10.0.0.2:80": usWorkload} {
		for _, service := range []string{"shop", id.TrustDomain().Name()} {
			i := routingtest.Registration()
			i.Service, i.Address, i.SpiffeId = service, address, id.String()
			_, err := r.RegisterInstance(routingtest.Admin(t), &ententev1.RegisterInstanceRequest{Instance: i})
			require.NoError(t, err)
		}
	}
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		if err := registry.Leases.Put(tx, "lease1", &statev1.Lease{Owner: usWorkload.String()}); err != nil {
			return err
		}
		return registry.Instances.Put(tx, "shop/lease1/0/10.0.0.3:80", &statev1.Instance{
			Service: "shop", Address: "10.0.0.3:80", Region: "us", Zone: "a", SpiffeId: usWorkload.String(), Weight: 1,
			Health: uint32(plan.Healthy),
		})
	})
	require.NoError(t, err)
	for _, test := range []struct {
		sees   string
		want   []string
		leases int
	}{
		{"eu.example.org us.example.org", []string{"eu.example.org 1", "shop 3", "us.example.org 1"}, 1},
		{"eu.example.org", []string{"eu.example.org 1", "shop 1"}, 0},
		{"us.example.org", []string{"shop 2", "us.example.org 1"}, 1},
		{"", nil, 0},
	} {
		sees := func(td spiffeid.TrustDomain) bool { return slices.Contains(strings.Fields(test.sees), td.Name()) }
		ctx := access.WithCaller(t.Context(), access.SVIDCaller(euWorkload))
		ctx = context.WithValue(ctx, scopeKey{}, access.NewScope(test.sees, sees))
		list, err := r.ListServices(ctx, &ententev1.ListServicesRequest{})
		require.NoError(t, err)
		var got []string
		for _, s := range list.GetServices() {
			got = append(got, fmt.Sprintf("%s %d", s.GetName(), len(s.GetInstances())))
			one, err := r.GetService(ctx, &ententev1.GetServiceRequest{Name: s.GetName()})
			require.NoError(t, err)
			require.Len(t, one.GetInstances(), len(s.GetInstances()))
		}
		require.Equal(t, test.want, got, test.sees)
		leases, err := r.ListLeases(ctx, &ententev1.ListLeasesRequest{})
		require.NoError(t, err)
		require.Len(t, leases.GetLeases(), test.leases, test.sees)
		if !strings.Contains(test.sees, "us.example.org") {
			_, err = r.GetService(ctx, &ententev1.GetServiceRequest{Name: "us.example.org"})
			require.Equal(t, codes.NotFound, status.Code(err))
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
