package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestAMapInterestBegunAnew: what a peer takes instead of an interest that it has not finished replaces it, and is no part of it.
func TestAMapInterestBegunAnew(t *testing.T) {
	s, pace, log, now := newMapServing(), newPeerPace(), newMapLog(), time.Unix(1_800_000_000, 0)
	require.NoError(t, s.take(&ententev1.PeerMapInterest{TrustDomain: "hub.test", Number: 1, Take: []string{"wide.test"}, More: true}, pace, log, now))
	require.NoError(t, s.take(&ententev1.PeerMapInterest{TrustDomain: "hub.test", Number: 2, Take: []string{"narrow.test"}}, pace, log, now))
	side := s.sides["hub.test"]
	require.True(t, side.ready)
	require.True(t, side.rules.Covers("narrow.test"))
	require.False(t, side.rules.Covers("wide.test"))
	require.NoError(t, s.take(&ententev1.PeerMapInterest{TrustDomain: "hub.test", Number: 3, Take: []string{"wide.test"}, More: true}, pace, log, now))
	require.NoError(t, s.take(&ententev1.PeerMapInterest{TrustDomain: "hub.test", Number: 4}, pace, log, now))
	require.False(t, s.serves(), "what is withdrawn is not what was begun")
}
