package fetch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestUnstatedEndpoints tests that an endpoint without statements is tried once an hour.
func TestUnstatedEndpoints(t *testing.T) {
	now := time.Unix(1000, 0)
	u := newUnstated()
	require.False(t, u.known("a", 1, now))
	u.add("a", 1, now)
	require.True(t, u.known("a", 1, now.Add(retryUnstated-1)))
	require.False(t, u.known("a", 1, now.Add(retryUnstated)))
	require.False(t, u.known("a", 2, now), "the endpoint may be another one")
	u.forget("a")
	require.False(t, u.known("a", 1, now))
}
