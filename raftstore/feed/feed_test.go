package feed_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var words = raftstore.NewTable[*wrapperspb.StringValue]("test_words")

func put(t *testing.T, s *raftstore.Store, key, value string) raftstore.Revision {
	t.Helper()
	revision, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
		return words.Put(tx, key, wrapperspb.String(value))
	})
	require.NoError(t, err)
	return revision
}

// overflow writes more than the history of changes holds.
func overflow(t *testing.T, s *raftstore.Store, key string) {
	t.Helper()
	large := string(make([]byte, 400<<10))
	for i := range 60 {
		put(t, s, key, fmt.Sprint(i, large))
	}
}

func TestLatestEndsWithTheLastState(t *testing.T) {
	s := raftstoretest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	done, started := make(chan error, 1), make(chan struct{}, 1)
	calls, last := 0, ""
	go func() {
		done <- feed.Latest(ctx, s, []raftstore.Prefix{words.Prefix("f")}, func(v *raftstore.View) error {
			calls++
			row, _, err := words.Get(v, "f")
			if last = row.Value.GetValue(); last == "99" {
				cancel()
			}
			select {
			case started <- struct{}{}:
			default:
			}
			return err
		})
	}()
	<-started
	for i := range 100 {
		put(t, s, "f", fmt.Sprint(i))
		put(t, s, "unrelated", fmt.Sprint(i))
	}
	require.ErrorIs(t, <-done, context.Canceled)
	require.Equal(t, "99", last)
	require.LessOrEqual(t, calls, 101, "once at first, and at most once a change")
}

func TestLatestOutlivesMissedChanges(t *testing.T) {
	s := raftstoretest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	first := true
	err := feed.Latest(ctx, s, []raftstore.Prefix{words.Prefix("")}, func(v *raftstore.View) error {
		if first {
			first = false
			overflow(t, s, "k")
			return nil
		}
		if row, _, err := words.Get(v, "k"); err != nil || row.Value.GetValue() == "last" {
			cancel()
			return err
		}
		put(t, s, "k", "last")
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
}

func TestErrorsOfFunctionsEndAFeed(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "k", "v")
	broken := errors.New("broken")
	over := []raftstore.Prefix{words.Prefix("")}
	require.Same(t, broken, feed.Latest(t.Context(), s, over, func(*raftstore.View) error { return broken }))
	require.Same(t, broken, feed.Batches(t.Context(), s, over, func(*raftstore.View) error { return broken }, nil))

	start := func(*raftstore.View) error {
		put(t, s, "k", "w")
		return nil
	}
	apply := func(*raftstore.View, raftstore.Batch) error { return broken }
	require.Same(t, broken, feed.Batches(t.Context(), s, over, start, apply))

	keys := feed.Keys[string]{Store: s, Over: over}
	set := feed.NewSet[string]()
	require.Same(
		t,
		broken,
		keys.Run(t.Context(), set, func(*raftstore.View, feed.Affected[string]) error { return broken }),
	)
	keys.Affected = func(*raftstore.View, raftstore.Change, *feed.Set[string]) error { return broken }
	require.Same(t, broken, keys.Run(t.Context(), set, func(*raftstore.View, feed.Affected[string]) error {
		put(t, s, "k", "x")
		return nil
	}))
}

func TestFeedsEndWithTheStore(t *testing.T) {
	s := raftstoretest.New(t)
	require.NoError(t, s.Close())
	over := []raftstore.Prefix{words.Prefix("")}
	start := func(*raftstore.View) error { return nil }
	require.ErrorIs(t, feed.Latest(t.Context(), s, over, start), raftstore.ErrClosed)
	require.ErrorIs(t, feed.Batches(t.Context(), s, over, start, nil), raftstore.ErrClosed)
}

func TestBatchesStartAgain(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "k0", "v")
	ctx, cancel := context.WithCancel(t.Context())
	var transcript []string
	restarted := false
	start := func(v *raftstore.View) error {
		rows, err := words.List(v, "k")
		transcript = append(transcript, fmt.Sprintf("start with %d rows", len(rows)))
		put(t, s, fmt.Sprint("k", len(rows)), "v")
		return err
	}
	apply := func(v *raftstore.View, b raftstore.Batch) error {
		require.GreaterOrEqual(t, v.Revision(), b.Revision)
		transcript = append(transcript, fmt.Sprintf("apply %s", b.Changes[0].Key))
		if restarted {
			cancel()
			return nil
		}
		restarted = true
		overflow(t, s, "k0")
		return nil
	}
	require.ErrorIs(t, feed.Batches(ctx, s, []raftstore.Prefix{words.Prefix("k")}, start, apply), context.Canceled)
	require.Equal(t, []string{"start with 1 rows", "apply k1", "start with 2 rows", "apply k2"}, transcript)
}

func TestKeysDeliverAffectedRows(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "before", "v")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	taken := make(chan feed.Affected[string])
	ended := make(chan error, 1)
	set := feed.NewSet[string]()
	keys := feed.Keys[string]{
		Store: s, Over: []raftstore.Prefix{words.Prefix("")},
		Affected: func(_ *raftstore.View, c raftstore.Change, set *feed.Set[string]) error {
			if c.Key == "everything" {
				set.AddAll()
			} else if c.Key != "nothing" {
				set.Add(c.Key)
			}
			return nil
		},
	}
	go func() {
		ended <- keys.Run(ctx, set, func(_ *raftstore.View, a feed.Affected[string]) error {
			taken <- a
			return nil
		})
	}()
	require.True(t, (<-taken).All, "the first delivery")
	put(t, s, "nothing", "v")
	put(t, s, "a", "v")
	a := <-taken
	require.False(t, a.All)
	require.Contains(t, a.Keys, "a")
	set.Add("from elsewhere")
	require.Contains(t, (<-taken).Keys, "from elsewhere")
	put(t, s, "everything", "v")
	require.True(t, (<-taken).All)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}
