package feed_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/clocktest"
	"github.com/ententehq/entente/raftstore/feed"
)

func keys(names ...string) map[string]struct{} {
	set := make(map[string]struct{})
	for _, name := range names {
		set[name] = struct{}{}
	}
	return set
}

func woken(s *feed.Set[string]) bool {
	select {
	case <-s.Wake():
		return true
	default:
		return false
	}
}

func TestSetGathersUntilTaken(t *testing.T) {
	s := feed.NewSet[string]()
	s.Add()
	require.False(t, woken(s), "nothing was added")
	s.Add("a", "b")
	s.Add("b", "c")
	require.True(t, woken(s))
	require.False(t, woken(s), "two additions wake once")
	require.Equal(t, feed.Affected[string]{Keys: keys("a", "b", "c")}, s.Take())
	require.Equal(t, feed.Affected[string]{Keys: keys()}, s.Take())
	s.Add("d")
	s.AddAll()
	require.True(t, woken(s))
	require.Equal(t, feed.Affected[string]{All: true, Keys: keys("d")}, s.Take())
}

// delivered is one call of the consumer, at a time since the start.
type delivered struct {
	at       time.Duration
	affected feed.Affected[string]
}

// record runs Each in the background and returns a function that stops it and returns its calls.
func record(t *testing.T, s *feed.Set[string], pace feed.Pace, takes time.Duration) (stop func() []delivered) {
	ctx, cancel := context.WithCancel(t.Context())
	began := time.Now()
	var calls []delivered
	ended := make(chan error, 1)
	go func() {
		ended <- s.Each(ctx, pace, func(a feed.Affected[string]) error {
			calls = append(calls, delivered{time.Since(began), a})
			<-time.After(takes)
			return nil
		})
	}()
	return func() []delivered {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		return calls
	}
}

func TestEachWaitsToGather(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		s := feed.NewSet[string]()
		stop := record(t, s, feed.Pace{Gather: 50 * time.Millisecond}, 0)
		<-time.After(time.Second)
		s.Add("a")
		<-time.After(49 * time.Millisecond)
		s.Add("b")
		<-time.After(2 * time.Millisecond)
		s.Add("c")
		<-time.After(time.Second)
		require.Equal(t, []delivered{
			{1050 * time.Millisecond, feed.Affected[string]{Keys: keys("a", "b")}},
			{1101 * time.Millisecond, feed.Affected[string]{Keys: keys("c")}},
		}, stop())
	})
}

func TestEachKeepsTheLeastPace(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		s := feed.NewSet[string]()
		stop := record(t, s, feed.Pace{Least: 20 * time.Millisecond}, 5*time.Millisecond)
		s.AddAll()
		<-time.After(time.Millisecond)
		s.Add("a")
		<-time.After(10 * time.Millisecond)
		s.Add("b")
		<-time.After(time.Second)
		s.Add("c")
		<-time.After(time.Second)
		require.Equal(t, []delivered{
			{0, feed.Affected[string]{All: true, Keys: keys()}},
			{20 * time.Millisecond, feed.Affected[string]{Keys: keys("a", "b")}},
			{1011 * time.Millisecond, feed.Affected[string]{Keys: keys("c")}},
		}, stop(), "the first comes at once, and so does one after a pause")
	})
}

func TestEachGathersWhileTheConsumerIsBusy(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		s := feed.NewSet[string]()
		stop := record(t, s, feed.Pace{}, time.Second)
		for _, key := range []string{"a", "b", "c", "b"} {
			s.Add(key)
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(5 * time.Second)
		require.Equal(t, []delivered{
			{0, feed.Affected[string]{Keys: keys("a")}},
			{time.Second, feed.Affected[string]{Keys: keys("b", "c")}},
		}, stop())
	})
}

func TestEachDeliversNothingThatWasTaken(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		s := feed.NewSet[string]()
		s.Add("a")
		s.Take()
		stop := record(t, s, feed.Pace{}, 0)
		<-time.After(time.Second)
		require.Empty(t, stop())
	})
}

func TestEachReturnsTheErrorOfItsFunction(t *testing.T) {
	s := feed.NewSet[string]()
	s.Add("a")
	broken := errors.New("broken")
	require.Same(t, broken, s.Each(t.Context(), feed.Pace{}, func(feed.Affected[string]) error { return broken }))
}
