package lifecycle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

func TestPartsStopInReverseOrder(t *testing.T) {
	life := New(hclog.NewNullLogger())
	var order []string
	for _, name := range []string{"store", "rooms", "callers"} {
		life.Start(name, func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name) // needs no lock: each part has ended before the next one stops
			return ctx.Err()
		})
	}
	life.OnStop("file", func() error { order = append(order, "file"); return errors.New("disk full") })
	require.EqualError(t, life.Stop(), "stop file: disk full")
	require.Equal(t, []string{"file", "callers", "rooms", "store"}, order)
	require.NoError(t, life.Stop(), "a second stop has nothing left to do")
}

func TestPartThatReturnsStopsMember(t *testing.T) {
	for name, c := range map[string]struct {
		returns error
		want    string
	}{
		"with an error": {errors.New("listener broke"), "endpoint: listener broke"},
		"without one":   {nil, "endpoint: it ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			life := New(hclog.NewNullLogger())
			life.Start("endpoint", func(context.Context) error { return c.returns })
			require.EqualError(t, <-life.failed, c.want)
			require.NoError(t, life.Stop(), "it is reported once")
		})
	}
}

func TestFirstFailureIsReturned(t *testing.T) {
	life := New(hclog.NewNullLogger())
	life.Fail(errors.New("first"))
	life.Fail(errors.New("second"))
	require.EqualError(t, <-life.failed, "first")
	require.Empty(t, life.failed)
}

// After a failure every part is told to end at once, and one that hangs holds the rest for a limited time.
func TestAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life := New(hclog.NewNullLogger())
		closed := make(chan string, 10)
		hung := make(chan struct{})
		life.Start("port", func(ctx context.Context) error { <-ctx.Done(); closed <- "port"; return ctx.Err() })
		life.OnStop("store", func() error { <-hung; return nil })
		life.Start("endpoint", func(ctx context.Context) error { <-ctx.Done(); closed <- "endpoint"; return ctx.Err() })
		began := time.Now()
		err := life.Abort(5 * time.Second)
		require.ErrorIs(t, err, ErrUnfinished)
		require.EqualError(t, err, "the member ends with a part that hangs: store has not stopped within 5s")
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Len(t, closed, 2, "the port below the store that hangs closes too")
		close(hung)
	})
}

func TestAbortOfPartsThatEnd(t *testing.T) {
	life := New(hclog.NewNullLogger())
	life.Start("port", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	life.OnStop("file", func() error { return errors.New("disk full") })
	require.EqualError(t, life.Abort(time.Hour), "stop file: disk full")
	require.NoError(t, life.Stop())
}
