package routing

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

// TestSimulateHint: two thirds of the callers are in eu, and their load goes to us if eu is down. Nothing of the
// scenario is stored.
func TestSimulateHint(t *testing.T) {
	r := newFixture(t)
	for address, place := range map[string]string{"10.0.0.1:80": "eu", "10.0.0.2:80": "eu", "10.0.0.3:80": "us"} {
		_, err := r.RegisterInstance(
			routingtest.Admin(t),
			&ententev1.RegisterInstanceRequest{Instance: &ententev1.Instance{
				Service: "shop", Address: address, SpiffeId: "spiffe://eu.example.org/shop",
				Locality: &ententev1.Locality{Region: place, Zone: "a"},
			}},
		)
		require.NoError(t, err)
	}
	answer, err := r.SimulateHint(routingtest.Admin(t), &ententev1.SimulateHintRequest{
		Service: "shop", Locality: &ententev1.Locality{Region: "eu"}, AllCallers: true, Scenario: []string{
			"eu=down",
			"asia=down",
		},
	})
	require.NoError(t, err)
	require.Equal(t, []string{"asia=down"}, answer.GetUnmatched())
	require.Len(t, answer.GetRegions(), 2)
	eu, us := answer.GetRegions()[0], answer.GetRegions()[1]
	require.Equal(
		t,
		[]uint32{67, 0, 2, 0},
		[]uint32{eu.GetNow(), eu.GetThen(), eu.GetAvailableNow(), eu.GetAvailableThen()},
	)
	require.Equal(
		t,
		[]uint32{33, 100, 1, 1},
		[]uint32{us.GetNow(), us.GetThen(), us.GetAvailableNow(), us.GetAvailableThen()},
	)
	require.Zero(t, answer.GetUnservedThen())
	require.EqualValues(t, 100, answer.GetHint().GetPriorities()[1].GetLoad())
	require.Len(t, answer.GetHint().GetExcluded(), 2)
	require.Equal(t, "it is assumed to be unhealthy", answer.GetHint().GetExcluded()[0].GetReason())
	now, err := r.GetHint(
		routingtest.Admin(t),
		&ententev1.GetHintRequest{Service: "shop", Locality: &ententev1.Locality{Region: "eu"}},
	)
	require.NoError(t, err)
	require.EqualValues(t, 100, now.GetPriorities()[0].GetLoad())

	_, err = r.SimulateHint(
		routingtest.Admin(t),
		&ententev1.SimulateHintRequest{Service: "shop", Scenario: []string{"eu=down"}},
	)
	routingtest.Refused(t, err, codes.InvalidArgument, "at least a region is required")
	_, err = r.SimulateHint(
		routingtest.Admin(t),
		&ententev1.SimulateHintRequest{Service: "shop", AllCallers: true, Scenario: []string{"eu=broken"}},
	)
	routingtest.Refused(t, err, codes.InvalidArgument, "a place can be down")
}
