package raftstore_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

func next(t testing.TB, w *raftstore.Watch) raftstore.Batch {
	t.Helper()
	b, err := w.Next(t.Context())
	require.NoError(t, err)
	return b
}

func TestWatchDeliversEveryRevisionInOrder(t *testing.T) {
	s := raftstoretest.New(t)
	before := put(t, s, "a/0", "before")
	w := s.Watch([]raftstore.Prefix{words.Prefix("a/"), other.Prefix("")}, before)
	defer w.Close()
	first := put(t, s, "a/1", "one")
	put(t, s, "b/1", "not watched")
	second, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
		if err := words.Put(tx, "a/1", wrapperspb.String("passing")); err != nil {
			return err
		}
		if err := words.Put(tx, "a/1", wrapperspb.String("two")); err != nil {
			return err
		}
		if err := words.Put(tx, "b/2", wrapperspb.String("not watched")); err != nil {
			return err
		}
		return other.Put(tx, "o", wrapperspb.String("other"))
	})
	require.NoError(t, err)
	third := remove(t, s, "a/1")

	b := next(t, w)
	require.Equal(t, first, b.Revision)
	require.Len(t, b.Changes, 1)
	m, err := words.Decode(b.Changes[0].Value)
	require.NoError(t, err)
	require.Equal(t, "one", m.GetValue())

	b = next(t, w)
	require.Equal(t, second, b.Revision)
	require.Len(t, b.Changes, 2)
	require.Equal(t, "test_other", b.Changes[0].Table)
	m, err = words.Decode(b.Changes[1].Value)
	require.NoError(t, err)
	require.Equal(t, "two", m.GetValue(), "the final state of the revision")

	b = next(t, w)
	require.Equal(
		t,
		raftstore.Batch{Revision: third, Changes: []raftstore.Change{{Table: "test_words", Key: "a/1"}}},
		b,
	)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.Next(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestWatchFromThePast(t *testing.T) {
	s := raftstoretest.New(t)
	var revisions []raftstore.Revision
	for i := range 5 {
		revisions = append(revisions, put(t, s, fmt.Sprint("k", i), "v"))
	}
	w := s.Watch([]raftstore.Prefix{words.Prefix("")}, revisions[1])
	defer w.Close()
	for _, want := range revisions[2:] {
		require.Equal(t, want, next(t, w).Revision)
	}
}

func TestSlowWatcherMustRestart(t *testing.T) {
	s := raftstoretest.New(t)
	at := put(t, s, "k", "v")
	slow := s.Watch([]raftstore.Prefix{words.Prefix("")}, at)
	defer slow.Close()
	idle := s.Watch([]raftstore.Prefix{other.Prefix("")}, at)
	defer idle.Close()
	// Large values fill the history sooner than many.
	large := string(make([]byte, 400<<10))
	for i := range 60 {
		put(t, s, "k", fmt.Sprint(i, large))
	}
	_, err := slow.Next(t.Context())
	require.ErrorIs(t, err, raftstore.ErrWatchRestart)
	_, err = slow.Next(t.Context())
	require.ErrorIs(t, err, raftstore.ErrWatchRestart, "it stays over")
	_, err = s.Watch([]raftstore.Prefix{words.Prefix("")}, at).Next(t.Context())
	require.ErrorIs(t, err, raftstore.ErrWatchRestart, "what is forgotten cannot be watched from")

	last, err := s.Update(
		t.Context(),
		func(tx *raftstore.Tx) error { return other.Put(tx, "o", wrapperspb.String("x")) },
	)
	require.NoError(t, err)
	require.Equal(t, last, next(t, idle).Revision, "one whose rows did not change has missed nothing")
}

func TestManyWatchersSeeEverything(t *testing.T) {
	s := raftstoretest.New(t)
	const watchers, writes = 1000, 20
	at := s.View().Revision()
	var group sync.WaitGroup
	for range watchers {
		w := s.Watch([]raftstore.Prefix{words.Prefix("w/")}, at)
		group.Go(func() {
			defer w.Close()
			for i := range writes {
				b, err := w.Next(t.Context())
				if err != nil || b.Changes[0].Key != fmt.Sprintf("w/%02d", i) {
					t.Errorf("change %d: %v, %v", i, b, err)
					return
				}
			}
		})
	}
	for i := range writes {
		put(t, s, fmt.Sprintf("w/%02d", i), "v")
	}
	group.Wait()
}

func TestClosedStore(t *testing.T) {
	s := raftstoretest.New(t)
	w := s.Watch([]raftstore.Prefix{words.Prefix("")}, s.View().Revision())
	at := put(t, s, "k", "v")
	require.Equal(t, at, next(t, w).Revision)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err := w.Next(t.Context())
	require.ErrorIs(t, err, raftstore.ErrClosed)
	_, err = s.Update(t.Context(), func(*raftstore.Tx) error { return nil })
	require.ErrorIs(t, err, raftstore.ErrClosed)
	_, err = s.Read(t.Context(), raftstore.ReadOptions{})
	require.ErrorIs(t, err, raftstore.ErrClosed)
	require.ErrorIs(
		t,
		feed.Latest(t.Context(), s, nil, func(*raftstore.View) error { return nil }),
		raftstore.ErrClosed,
	)
	require.ErrorIs(t, s.WhileLeading(t.Context(), func(context.Context) {}), raftstore.ErrClosed)
	require.Equal(t, "v", value(t, s, "k"), "a view of a closed store is still readable")
}
