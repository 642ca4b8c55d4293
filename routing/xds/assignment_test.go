package xds

import (
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/routing/plan"
)

func TestCheckAssignment(t *testing.T) {
	good := func() *endpoint.ClusterLoadAssignment {
		return assignment(
			"shop",
			spill(planFor(t, "eu/a", "1 eu/a healthy", "2 eu/b healthy", "3 us/a healthy"), nil),
			servicePlan{}.announced(forGRPC),
		)
	}
	require.NoError(t, checkAssignment(good()))
	for name, c := range map[string]struct {
		spoil func(*endpoint.ClusterLoadAssignment)
		want  string
	}{
		"a gap": {func(
			a *endpoint.ClusterLoadAssignment,
		) {
			a.Endpoints[2].Priority = 3
		}, "follows no priority"},
		"no first priority": {
			func(a *endpoint.ClusterLoadAssignment) { a.Endpoints = a.Endpoints[1:] },
			"follows no priority",
		},
		"a locality twice": {func(a *endpoint.ClusterLoadAssignment) {
			a.Endpoints[1].Priority, a.Endpoints[1].Locality = 0, a.Endpoints[0].Locality
		}, "occurs twice in priority 0"},
		"an address twice": {func(
			a *endpoint.ClusterLoadAssignment,
		) {
			a.Endpoints[1].LbEndpoints = a.Endpoints[0].LbEndpoints
		}, "address 10.0.0.1 80 occurs twice"},
		"no locality weight": {
			func(a *endpoint.ClusterLoadAssignment) { a.Endpoints[0].LoadBalancingWeight = nil },
			"has no weight",
		},
		"no endpoint weight": {
			func(a *endpoint.ClusterLoadAssignment) { a.Endpoints[0].LbEndpoints[0].LoadBalancingWeight = nil },
			"has no weight",
		},
		"a sum too large": {func(a *endpoint.ClusterLoadAssignment) {
			a.Endpoints[1].Priority = 0
			a.Endpoints[0].LoadBalancingWeight = wrapperspb.UInt32(1 << 31)
			a.Endpoints[1].LoadBalancingWeight = wrapperspb.UInt32(1 << 31)
		}, "more than 32 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			a := good()
			c.spoil(a)
			require.ErrorContains(t, checkAssignment(a), c.want)
		})
	}
}

func TestFit(t *testing.T) {
	for _, weights := range [][]uint64{nil, {1}, {0}, {1 << 32}, {1 << 40, 1}, {
		maxWeightSum,
		maxWeightSum,
		maxWeightSum,
	}, {1 << 62, 1 << 62, 3}} {
		sum := uint64(0)
		for _, w := range fit(weights) {
			require.Positive(t, w)
			sum += uint64(w)
		}
		require.LessOrEqual(t, sum, uint64(maxWeightSum))
	}
	require.Equal(t, []uint32{1, 2, 3}, fit([]uint64{1, 2, 3}))
}

func TestHealthForEnvoy(t *testing.T) {
	for health, want := range map[plan.Health]core.HealthStatus{
		plan.Healthy: core.HealthStatus_HEALTHY, plan.Degraded: core.HealthStatus_DEGRADED,
		plan.Unhealthy: core.HealthStatus_UNHEALTHY, plan.Draining: core.HealthStatus_DRAINING,
	} {
		require.Equal(t, want, forEnvoy(plan.Endpoint{Health: health}))
	}
}
