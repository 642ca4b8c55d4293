package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ententehq/entente/authority/plan"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

// TestFailuresAreOneLineEach has a loop fail with two errors at once.
func TestFailuresAreOneLineEach(t *testing.T) {
	var out bytes.Buffer
	_, c := newOne(t, func(config *Config) { config.Logger = hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Warn}) })
	c.stop()
	out.Reset()
	ctx, cancel := context.WithCancel(context.Background())
	runs := 0
	err := c.tend(ctx, "renew", func(context.Context) (time.Time, error) {
		if runs++; runs > 1 {
			cancel()
		}
		return plan.Never, errors.Join(errors.New("one is sealed"), fmt.Errorf("two: %w", errors.New("is down")))
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, strings.Count(out.String(), "\n"), out.String())
	require.Contains(t, out.String(), `could not renew; trying again: error="one is sealed; two: is down"`)
}

// TestRetriesBackOffWithJitter: members that fail together do not come back together, and wait longer each time, up to a bound.
func TestRetriesBackOffWithJitter(t *testing.T) {
	draws := map[time.Duration]bool{}
	for range 20 {
		b := newBackoff()
		draws[b.NextBackOff()] = true
		var last time.Duration
		for range 40 {
			last = b.NextBackOff()
		}
		require.Greater(t, last, lastRetry/2-time.Millisecond)
		require.LessOrEqual(t, last, lastRetry*3/2)
	}
	require.Greater(t, len(draws), 10)
}
