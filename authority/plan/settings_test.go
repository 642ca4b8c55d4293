package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHint: an authority waits for readers that still poll at a longer hint.
func TestHint(t *testing.T) {
	now := time.Now()
	s := defaults().WithHint(time.Minute, now)
	require.Equal(t, 15*time.Minute, s.Dissemination(now))
	require.Equal(t, 3*time.Minute, s.Dissemination(now.Add(15*time.Minute)))
	s = s.WithHint(30*time.Second, now.Add(time.Minute))
	require.Equal(t, 15*time.Minute, s.Dissemination(now.Add(2*time.Minute)),
		"the longest that anybody can be polling at counts")
	s = s.WithHint(time.Hour, now.Add(2*time.Minute))
	require.Equal(t, 3*time.Hour, s.Dissemination(now.Add(2*time.Minute)))
}

// TestSlowestReader: no hint makes an authority be used before the slowest reader has polled three times.
func TestSlowestReader(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name           string
		hint, peerPoll time.Duration
		want           time.Duration
	}{
		{"a hint longer than the slowest poll", time.Minute, 15 * time.Second, 3 * time.Minute},
		{"a hint shorter than the slowest poll", 10 * time.Second, 15 * time.Second, 45 * time.Second},
		{"readers that poll at any hint", time.Second, 0, 3 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := defaults()
			s.RefreshHint, s.PeerMinRefresh = test.hint, test.peerPoll
			require.Equal(t, test.want, s.Dissemination(now))
			require.NoError(t, s.Check(time.Second))
		})
	}
	s := defaults()
	s.RefreshHint, s.PeerMinRefresh, s.CATTL, s.X509SVIDTTL = time.Second, 15*time.Second, time.Minute, 10*time.Second
	s.JWTSVIDTTL = 10 * time.Second
	require.EqualError(t, s.Check(time.Second), "a new authority has to be known for 45s (3 times peer_min_refresh) "+
		"before it signs, but half of ca_ttl less the longest SVID lifetime is 20s; raise ca_ttl (1m0s), or lower "+
		"peer_min_refresh (15s) or the SVID lifetime (10s)")
	s.PeerMinRefresh = 25 * time.Hour
	require.EqualError(t, s.Check(time.Second), "peer_min_refresh is 25h0m0s; it has to be between 0 and 24h0m0s")
}
