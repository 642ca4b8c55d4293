package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestAMapInterestBegunAnew: what a peer takes instead of an interest that it has not finished replaces it, and is no part of it.
func TestAMapInterestBegunAnew(t *testing.T) {
	s, log, now := newMapServing(), newMapLog(), time.Unix(1_800_000_000, 0)
	require.NoError(t, s.take(&ententev1.PeerMapInterest{TrustDomain: "hub.test", Take: []string{"wide.test"}, More: true}, log, now))
	require.NoError(t, s.take(&ententev1.PeerMapInterest{TrustDomain: "hub.test", Take: []string{"narrow.test"}}, log, now))
	side := s.sides["hub.test"]
	require.True(t, side.ready)
	require.True(t, side.rules.Covers("narrow.test"))
	require.False(t, side.rules.Covers("wide.test"))
}
