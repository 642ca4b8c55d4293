package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

// TestFailuresAreOneLineEach: a function that fails with two errors at once is logged in one line.
func TestFailuresAreOneLineEach(t *testing.T) {
	var out bytes.Buffer
	runner := Runner{
		Changed: &Signal{}, Now: time.Now, Log: hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Warn}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	runs := 0
	err := runner.Run(ctx, "renew", func(context.Context) (time.Time, error) {
		if runs++; runs > 1 {
			cancel()
		}
		return time.Time{}, errors.Join(errors.New("one is sealed"), fmt.Errorf("two: %w", errors.New("is down")))
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, strings.Count(out.String(), "\n"), out.String())
	require.Contains(t, out.String(), `cannot renew; retrying: error="one is sealed; two: is down"`)
}

// TestRecoveryIsLoggedOnce: the log has the first success after failures, and no other.
func TestRecoveryIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		runner := Runner{
			Changed: &Signal{}, Now: time.Now,
			Log: hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info, DisableTime: true}),
		}
		ctx, cancel := context.WithCancel(t.Context())
		runs := 0
		err := runner.Run(ctx, "renew", func(context.Context) (time.Time, error) {
			switch runs++; runs {
			case 2, 3:
				return time.Time{}, errors.New("down")
			case 6:
				cancel()
			}
			return time.Now().Add(time.Second), nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 2, strings.Count(out.String(), "[WARN]  cannot renew; retrying: error=down in="), out.String())
		require.Equal(t, 1, strings.Count(out.String(), "[INFO]  recovered: can renew\n"), out.String())
		require.Equal(t, 3, strings.Count(out.String(), "\n"), out.String())
	})
}

// TestFailuresOfAStartAreInformation: they are while the member starts, and no longer.
func TestFailuresOfAStartAreInformation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		runs := 0
		runner := Runner{
			Changed: &Signal{}, Now: time.Now, Starting: func() bool { return runs == 0 },
			Log: hclog.New(&hclog.LoggerOptions{Output: &out, DisableTime: true}),
		}
		err := runner.Run(ctx, "renew", func(context.Context) (time.Time, error) {
			if runs++; runs > 2 {
				cancel()
			}
			return time.Time{}, errors.New("down")
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Regexp(t, `^\[INFO\]  cannot renew; retrying: .*\n\[WARN\]  cannot renew; retrying: .*\n$`,
			out.String())
	})
}

// TestRetriesBackOffWithJitter: members that fail together do not retry together, and wait longer each time, up to a
// bound.
func TestRetriesBackOffWithJitter(t *testing.T) {
	draws := map[time.Duration]bool{}
	for range 20 {
		b := newBackoff()
		draws[b.NextBackOff()] = true
		var last time.Duration
		for range 40 {
			last = b.NextBackOff()
		}
		require.Greater(t, last, LastRetry/2-time.Millisecond)
		require.LessOrEqual(t, last, LastRetry*3/2)
	}
	require.Greater(t, len(draws), 10)
}
