package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var (
	words = raftstore.NewTable[*wrapperspb.StringValue]("test_words")
	other = raftstore.NewTable[*wrapperspb.StringValue]("test_other")
)

func put(t testing.TB, s *raftstore.Store, key, value string) raftstore.Revision {
	t.Helper()
	r, err := s.Update(
		t.Context(),
		func(tx *raftstore.Tx) error { return words.Put(tx, key, wrapperspb.String(value)) },
	)
	require.NoError(t, err)
	return r
}

func remove(t testing.TB, s *raftstore.Store, key string) raftstore.Revision {
	t.Helper()
	r, err := s.Update(t.Context(), func(tx *raftstore.Tx) error { return words.Delete(tx, key) })
	require.NoError(t, err)
	return r
}

func TestUpdateAndRead(t *testing.T) {
	s := raftstoretest.New(t)
	first := put(t, s, "a/1", "one")
	second := put(t, s, "a/2", "two")
	require.Greater(t, second, first)

	v := s.View()
	require.Equal(t, second, v.Revision())
	row, ok, err := words.Get(v, "a/1")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "one", row.Value.GetValue())
	require.Equal(t, first, row.Revision)
	rows, err := words.List(v, "a/")
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.Equal(t, second, words.PrefixRevision(v, "a/"))
	require.Equal(t, raftstore.Revision(0), words.PrefixRevision(v, "b/"))
	require.Equal(t, raftstore.Revision(0), other.PrefixRevision(v, ""))

	third := remove(t, s, "a/1")
	require.Equal(t, third, words.PrefixRevision(s.View(), "a/1"))
	require.Equal(t, third, words.PrefixRevision(s.View(), "a/"))
	require.Equal(t, second, words.PrefixRevision(s.View(), "a/2"))
	_, ok, err = words.Get(v, "a/1")
	require.NoError(t, err)
	require.True(t, ok, "a view never changes")
}

func TestUpdateReturnsTheErrorOfItsFunction(t *testing.T) {
	s := raftstoretest.New(t)
	mine := errors.New("mine")
	before := s.View().Revision()
	_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
		if err := words.Put(tx, "k", wrapperspb.String("v")); err != nil {
			return err
		}
		return mine
	})
	require.Same(t, mine, err)
	require.Equal(t, before, s.View().Revision())
}

func TestUpdateWithoutChangeCommitsNothing(t *testing.T) {
	s := raftstoretest.New(t)
	at := put(t, s, "k", "v")
	require.Equal(t, at, put(t, s, "k", "v"))
	require.Equal(t, at, remove(t, s, "absent"))
	require.Equal(t, at, s.View().Revision())
}

// TestOnCommit: what a run of a transaction passed is called once that run is committed, and else never.
func TestOnCommit(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "k", "v")
	runs, committed := 0, []int{}
	_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
		runs++
		run := runs
		tx.OnCommit(func(context.Context) { committed = append(committed, run) })
		if _, _, err := words.Get(tx, "k"); err != nil {
			return err
		}
		if run == 1 {
			put(t, s, "k", "another writer") // so that this run is rejected
		}
		return words.Put(tx, "k", wrapperspb.String("mine"))
	})
	require.NoError(t, err)
	require.Equal(t, []int{2}, committed)

	for name, fn := range map[string]func(*raftstore.Tx) error{
		"an error":      func(tx *raftstore.Tx) error { return errors.Join(words.Delete(tx, "k"), errors.New("mine")) },
		"nothing to do": func(*raftstore.Tx) error { return nil },
	} {
		_, _ = s.Update(t.Context(), func(tx *raftstore.Tx) error {
			tx.OnCommit(func(context.Context) { t.Error(name) })
			return fn(tx)
		})
	}
}

func TestLinearizableReadOnTheLeader(t *testing.T) {
	s := raftstoretest.New(t)
	at := put(t, s, "k", "v")
	v, err := s.Read(context.Background(), raftstore.ReadOptions{Linearizable: true})
	require.NoError(t, err)
	require.GreaterOrEqual(t, v.Revision(), at)
}

func TestTableNames(t *testing.T) {
	for _, name := range []string{"", "Upper", "a b", "a/b", "a\x00b", "test_words", string(make([]byte, 65))} {
		require.Panics(t, func() { raftstore.NewTable[*wrapperspb.StringValue](name) }, "%q", name)
	}
}

func TestRevisionsWithoutValues(t *testing.T) {
	s := raftstoretest.New(t)
	want := map[string]raftstore.Revision{"a/2": put(t, s, "a/2", "two"), "a/1": put(t, s, "a/1", "one")}
	put(t, s, "b/1", "three")
	v := s.View()
	var keys []string
	for key, revision := range words.Revisions(v, "a/") {
		keys = append(keys, key)
		require.Equal(t, want[key], revision)
		of, found := words.RevisionOf(v, key)
		require.True(t, found)
		require.Equal(t, revision, of)
	}
	require.Equal(t, []string{"a/1", "a/2"}, keys)
	for range words.Revisions(v, "") {
		break // as a caller does that needs only one
	}
	_, found := words.RevisionOf(v, "a/3")
	require.False(t, found)
}

func TestTooLarge(t *testing.T) {
	s := raftstoretest.New(t)
	at := s.View().Revision()
	_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
		return words.Put(tx, "k", wrapperspb.String(strings.Repeat("x", raftstore.MaxCommand)))
	})
	require.ErrorIs(t, err, raftstore.ErrTooLarge)
	require.Equal(t, at, s.View().Revision())
	_, err = s.Update(t.Context(), func(tx *raftstore.Tx) error {
		for i := range 100 {
			// The error of Put is ignored; the transaction is too large nevertheless.
			_ = words.Put(tx, fmt.Sprint(i), wrapperspb.String(strings.Repeat("x", raftstore.MaxCommand/4)))
		}
		return nil
	})
	require.ErrorIs(t, err, raftstore.ErrTooLarge)
	put(t, s, "k", strings.Repeat("x", raftstore.MaxCommand-4096))
}

// TestWithoutCompanion: a transaction that is not part of the call takes no companion along.
func TestWithoutCompanion(t *testing.T) {
	s := raftstoretest.New(t)
	ran := 0
	ctx := raftstore.WithCompanion(t.Context(), func(*raftstore.Tx, bool) error { ran++; return nil })
	for _, c := range []struct {
		ctx  context.Context
		want int
	}{{raftstore.WithoutCompanion(ctx), 0}, {ctx, 1}, {raftstore.WithoutCompanion(ctx), 1}} {
		_, err := s.Update(c.ctx, func(tx *raftstore.Tx) error { return words.Put(tx, "k", wrapperspb.String("v")) })
		require.NoError(t, err)
		require.Equal(t, c.want, ran)
	}
}
