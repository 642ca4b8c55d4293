package client_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestWatchHintMakesWholeHints: a member sends differences, and the caller receives the hints that a call returns.
func TestWatchHintMakesWholeHints(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := administrator(ctx)
	defer c.Close()
	here := &ententev1.Locality{Region: "local", Zone: "local-a"}
	put := func(n int, health ententev1.Health) {
		_, err := c.Routing().RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: &ententev1.Instance{
			Service: "many", Address: fmt.Sprintf("10.1.0.%d:443", n), SpiffeId: web.String(), Health: health,
			Locality: here,
		}})
		require.NoError(t, err)
	}
	const instances = 20
	for n := range instances {
		put(n, ententev1.Health_HEALTH_HEALTHY)
	}
	raw, err := c.Routing().WatchHint(ctx, &ententev1.WatchHintRequest{
		Service: "many", Locality: here, Differences: true,
	})
	require.NoError(t, err)
	whole, err := raw.Recv()
	require.NoError(t, err)
	require.Nil(t, whole.GetDifference(), "the first hint is whole")

	changed := 0
	for hint, err := range c.WatchHint(ctx, "many", here) {
		require.NoError(t, err)
		require.Len(t, hint.GetExcluded(), changed)
		now, err := c.Routing().GetHint(ctx, &ententev1.GetHintRequest{Service: "many", Locality: here})
		require.NoError(t, err)
		now.Revision = hint.GetRevision()
		require.True(t, proto.Equal(now, hint), "%v is not %v", hint, now)
		if changed == 3 {
			break
		}
		put(changed*7, ententev1.Health_HEALTH_UNHEALTHY)
		changed++
	}
	difference, err := raw.Recv()
	require.NoError(t, err)
	require.NotNil(t, difference.GetDifference())
	require.Less(t, 5*proto.Size(difference), proto.Size(whole))
	for n := range instances {
		_, err := c.Routing().DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
			Service: "many", Address: fmt.Sprintf("10.1.0.%d:443", n),
		})
		require.NoError(t, err)
	}
}
