package history

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore/internal/row"
)

func batch(revision row.Revision, keys ...string) row.Batch {
	b := row.Batch{Revision: revision}
	for _, key := range keys {
		b.Changes = append(b.Changes, row.Change{Table: "t", Key: key, Value: []byte{}})
	}
	return b
}

// signalled reports whether a subscription has a signal, and consumes it.
func signalled(s *Subscription) bool {
	select {
	case <-s.Signal():
		return true
	default:
		return false
	}
}

// all returns the batches that a subscription has, as "REVISION KEYS…", and the error that ends them.
func all(s *Subscription) (got []string, err error) {
	for {
		b, ok, err := s.Next()
		if err != nil || !ok {
			return got, err
		}
		text := fmt.Sprint(b.Revision)
		for _, c := range b.Changes {
			text += " " + c.Key
		}
		got = append(got, text)
	}
}

func TestSubscription(t *testing.T) {
	h := New()
	h.Append([]row.Batch{batch(1, "a/1"), batch(2, "b/1")})
	s := h.Subscribe([]row.Prefix{{Table: "t", Key: "a/"}}, 1)
	defer s.Close()
	require.True(t, signalled(s), "there are later changes, which it may want")
	got, err := all(s)
	require.NoError(t, err)
	require.Empty(t, got)

	h.Append([]row.Batch{batch(3, "b/2")})
	require.False(t, signalled(s), "another prefix")
	h.Append([]row.Batch{batch(4, "a/1", "b/2"), batch(5, "b/3"), batch(6, "a/2")})
	require.True(t, signalled(s))
	got, err = all(s)
	require.NoError(t, err)
	require.Equal(t, []string{"4 a/1", "6 a/2"}, got, "only what it wants, in order")

	h.Append([]row.Batch{batch(7, "a/3")})
	require.True(t, signalled(s))
	s.Skip()
	got, err = all(s)
	require.NoError(t, err)
	require.Empty(t, got)
	h.Append([]row.Batch{batch(8, "a/4")})
	require.True(t, signalled(s), "it goes on after a skip")
	got, err = all(s)
	require.NoError(t, err)
	require.Equal(t, []string{"8 a/4"}, got)
}

func TestReplacedStateRestartsSubscriptions(t *testing.T) {
	h := New()
	s := h.Subscribe([]row.Prefix{{Table: "t"}}, 0)
	defer s.Close()
	h.Append([]row.Batch{batch(1, "a")})
	h.Reset(5)
	require.True(t, signalled(s))
	_, err := all(s)
	require.ErrorIs(t, err, ErrMissed)
	s.Skip()
	h.Append([]row.Batch{batch(6, "b")})
	got, err := all(s)
	require.NoError(t, err)
	require.Equal(t, []string{"6 b"}, got)

	late := h.Subscribe([]row.Prefix{{Table: "t"}}, 4)
	defer late.Close()
	require.True(t, signalled(late), "one that is behind from the start is woken")
	_, err = all(late)
	require.ErrorIs(t, err, ErrMissed)
}

func TestHistoryIsBounded(t *testing.T) {
	h := New()
	s := h.Subscribe([]row.Prefix{{Table: "t"}}, 0)
	defer s.Close()
	recent := h.Subscribe([]row.Prefix{{Table: "t", Key: "last"}}, 0)
	defer recent.Close()
	for revision := range row.Revision(maxBatches + 10) {
		h.Append([]row.Batch{batch(revision+1, "k")})
	}
	require.LessOrEqual(t, len(h.batches), maxBatches)
	_, err := all(s)
	require.ErrorIs(t, err, ErrMissed, "its changes are gone")
	h.Append([]row.Batch{batch(maxBatches+11, "last")})
	got, err := all(recent)
	require.NoError(t, err)
	want := []string{fmt.Sprint(maxBatches+11, " last")}
	require.Equal(t, want, got, "a subscription whose rows did not change has missed nothing")
	s.Close()
	recent.Close()
	require.Empty(t, h.byTable, "closed subscriptions are forgotten")
}
