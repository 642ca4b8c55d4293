package issue

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/authority/plan"
)

// TestLimiterIsBounded: the table of callers is bounded, and the least recent caller is dropped first.
func TestLimiterIsBounded(t *testing.T) {
	now := time.Now()
	l, err := newLimiter(1, 1, func() time.Time { return now }, nil)
	require.NoError(t, err)
	for i := range 2 * maxLimitedCallers {
		l.of(fmt.Sprint(i))
	}
	require.Equal(t, maxLimitedCallers, l.callers.Len())
	require.False(t, l.callers.Contains("0"))
	require.True(t, l.callers.Contains(fmt.Sprint(2*maxLimitedCallers-1)))
	unlimited, err := newLimiter(-1, 1, time.Now, nil)
	require.NoError(t, err)
	for range 100 {
		require.NoError(t, unlimited.admit(access.Caller{}, plan.X509))
	}
}
