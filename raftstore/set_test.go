package raftstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var sets = raftstore.NewSet[*wrapperspb.StringValue]("test_sets")

func items(n int, value string) map[string]*wrapperspb.StringValue {
	all := map[string]*wrapperspb.StringValue{}
	for i := range n {
		all[fmt.Sprintf("%04d", i)] = wrapperspb.String(value)
	}
	return all
}

func members(t *testing.T, r raftstore.Reader, set string) map[string]string {
	all := map[string]string{}
	for row, err := range sets.All(r, set) {
		require.NoError(t, err)
		all[row.Key] = row.Value.GetValue()
	}
	return all
}

func TestReplaceWritesOnlyTheDifferences(t *testing.T) {
	s := raftstoretest.New(t)
	_, err := sets.Replace(t.Context(), s, "s", items(3, "v"))
	require.NoError(t, err)
	at := s.View().Revision()
	w := s.Watch([]raftstore.Prefix{{Table: "test_sets"}}, at)
	defer w.Close()

	revision, err := sets.Replace(t.Context(), s, "s", items(3, "v"))
	require.NoError(t, err)
	require.Equal(t, at, revision, "the same again is no change")

	next3 := items(3, "v")
	delete(next3, "0000")
	next3["0001"] = wrapperspb.String("w")
	next3["0009"] = wrapperspb.String("new")
	revision, err = sets.Replace(t.Context(), s, "s", next3)
	require.NoError(t, err)
	b := next(t, w)
	require.Equal(t, revision, b.Revision)
	require.Len(t, b.Changes, 3, "one deleted, one changed, one new")
	require.Equal(t, map[string]string{"0001": "w", "0002": "v", "0009": "new"}, members(t, s.View(), "s"))
	require.Empty(t, members(t, s.View(), "another"))

	row, ok, err := sets.Get(s.View(), "s", "0009")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "0009", row.Key)
}

func TestReplaceOfAnySizeIsSeenAsAWhole(t *testing.T) {
	s := raftstoretest.New(t)
	large := strings.Repeat("x", 4<<10)
	_, err := sets.Replace(t.Context(), s, "s", items(2, "small"))
	require.NoError(t, err)
	_, err = sets.Replace(t.Context(), s, "other", items(1, "other"))
	require.NoError(t, err)

	w := s.Watch([]raftstore.Prefix{sets.Prefix("s")}, s.View().Revision())
	defer w.Close()
	for _, value := range []string{large + "1", large + "2"} {
		revision, err := sets.Replace(t.Context(), s, "s", items(500, value))
		require.NoError(t, err)
		require.Equal(t, revision, next(t, w).Revision, "one revision changes the set")
		got := members(t, s.View(), "s")
		require.Len(t, got, 500)
		for item, v := range got {
			require.Equal(t, value, v, item)
		}
	}
	count := raftstore.RowsOf(s.View(), "test_sets")
	require.Equal(t, len(members(t, s.View(), "s"))+1, count, "nothing of older generations stays")
	require.Equal(t, map[string]string{"0000": "other"}, members(t, s.View(), "other"))
}

func TestReplaceRefuses(t *testing.T) {
	s := raftstoretest.New(t)
	_, err := sets.Replace(t.Context(), s, "a/b", items(1, "v"))
	require.EqualError(t, err, `replace set "a/b" of test_sets: a set's name has 1 to 1024 bytes and no '/'`)
	_, err = sets.Replace(t.Context(), s, "s", map[string]*wrapperspb.StringValue{"": {}})
	require.EqualError(t, err, `replace set "s" of test_sets: the name of an item is empty or longer than 2048 bytes`)
	_, err = sets.Replace(
		t.Context(),
		s,
		"s",
		map[string]*wrapperspb.StringValue{"k": wrapperspb.String(strings.Repeat("x", raftstore.MaxCommand))},
	)
	require.ErrorIs(t, err, raftstore.ErrTooLarge)
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
