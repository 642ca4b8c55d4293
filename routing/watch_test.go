package routing

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
	"github.com/ententehq/entente/trust/standing"
)

func TestWatchHint(t *testing.T) {
	r := newFixture(t)
	client := routingtest.Dial(t, r.Server, routingtest.Local)
	_, err := first(client.WatchHint(t.Context(), &ententev1.WatchHintRequest{Service: "shop"}))
	routingtest.Refused(t, err, codes.InvalidArgument, "at least a region is required")

	stream, err := client.WatchHint(
		t.Context(),
		&ententev1.WatchHintRequest{Service: "shop", Locality: euCaller.Proto()},
	)
	require.NoError(t, err)
	next := func() *ententev1.Hint {
		h, err := stream.Recv()
		require.NoError(t, err)
		return h
	}
	require.Equal(t, "no instance is registered", next().GetReason())
	far := routingtest.Registration()
	far.SpiffeId = usWorkload.String()
	_, err = r.RegisterInstance(routingtest.Admin(t), &ententev1.RegisterInstanceRequest{Instance: far})
	require.NoError(t, err)
	require.Equal(t, standing.Unknown.Sentence(usWorkload.TrustDomain()), next().GetExcluded()[0].GetReason())
	other := routingtest.Registration()
	other.Service = "other"
	_, err = r.RegisterInstance(routingtest.Admin(t), &ententev1.RegisterInstanceRequest{Instance: other})
	require.NoError(t, err)
	// A change of another service sends nothing. A change of trust changes the hint.
	r.setTrust(t, "us.example.org", standing.Stale)
	h := next()
	require.Equal(
		t,
		ententev1.Freshness_FRESHNESS_STALE,
		h.GetPriorities()[0].GetLocalities()[0].GetEndpoints()[0].GetFreshness(),
	)
	require.Empty(t, h.GetExcluded())
}

func first(stream ententev1.RoutingService_WatchHintClient, err error) (*ententev1.Hint, error) {
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}
