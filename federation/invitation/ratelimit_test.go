package invitation

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRateLimit tests that a host that calls without end is refused, and does not lock other hosts out.
func TestRateLimit(t *testing.T) {
	s, now := newRateLimit(), someTime
	for i := range 10 * allBurst {
		require.Equal(t, i < oneHostBurst, s.allow("192.0.2.1", now), i)
	}
	require.True(t, s.allow("192.0.2.2", now))
	require.True(t, s.allow("192.0.2.1", now.Add(time.Second)), "the burst refills")

	// All hosts together are limited, and so is the number of hosts in memory.
	allowed := 0
	for i := range 3 * maxHosts {
		if s.allow(fmt.Sprint(i), now) {
			allowed++
		}
		require.LessOrEqual(t, len(s.hosts), maxHosts)
	}
	require.LessOrEqual(t, allowed, allBurst)
	s.forget(now.Add(time.Hour))
	require.Empty(t, s.hosts)
}
