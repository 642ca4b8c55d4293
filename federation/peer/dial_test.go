package peer

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestResetsBackoff: the backoff is kept if a stream ended because of what the peer sent.
func TestResetsBackoff(t *testing.T) {
	for end, want := range map[string]bool{
		"lost": true, "silent": true, "draining": true, "moved": true,
		"not_stored": true, "suspended": true, unreachable: true,
		"flood": false, "refused_bundles": false, "refused_statements": false,
		"refused_map": false, "malformed": false, "version": false,
		"terminated": false, "": false,
	} {
		require.Equal(t, want, resetsBackoff(Settled+1, end), end)
		require.False(t, resetsBackoff(Settled, end), end)
	}
}
