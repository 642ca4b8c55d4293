package raftstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

func value(t testing.TB, s *raftstore.Store, key string) string {
	t.Helper()
	row, _, err := words.Get(s.View(), key)
	require.NoError(t, err)
	return row.Value.GetValue()
}

func TestWritesOnAnyMember(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3)
	for i, s := range c.Running() {
		key := fmt.Sprint("from/", i)
		at := put(t, s, key, "v")
		require.GreaterOrEqual(t, s.View().Revision(), at, "the member that wrote has applied it")
		for _, reader := range c.Running() {
			v, err := reader.Read(t.Context(), raftstore.ReadOptions{Linearizable: true})
			require.NoError(t, err)
			_, ok, err := words.Get(v, key)
			require.NoError(t, err)
			require.True(t, ok, "member %s read linearizably after the write of member %d", reader.MemberID(), i)
			v, err = reader.Read(t.Context(), raftstore.ReadOptions{MinRevision: at})
			require.NoError(t, err)
			require.GreaterOrEqual(t, v.Revision(), at)
		}
	}
	require.NotEmpty(t, c.Store(0).ClusterID())
	require.Equal(t, c.Store(0).ClusterID(), c.Store(2).ClusterID())
}

// What a leader writes for itself it accepts from the others too: a transaction that looks up a key that no row can
// have finds nothing, at every member.
func TestKeysThatNoRowHas(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3)
	leader := c.Leader()
	for i, key := range []string{"", strings.Repeat("k", 4097)} {
		for member := range 3 {
			_, err := c.Store(member).Update(t.Context(), func(tx *raftstore.Tx) error {
				if _, found, err := words.Get(tx, key); err != nil || found {
					return fmt.Errorf("a row with %d bytes of key: %w", len(key), err)
				}
				if _, found := words.RevisionOf(tx, key); found {
					return fmt.Errorf("a revision of a row with %d bytes of key", len(key))
				}
				return words.Put(tx, fmt.Sprintf("%d-%d", i, member), wrapperspb.String("written"))
			})
			require.NoError(t, err, "member %d, where %d leads", member, leader)
		}
	}
}

// A restored row names the member that restores it as the one that wrote it, whoever wrote it before and whether or not
// that member leads: a snapshot can have any content.
func TestRestoredRowsNameTheMemberThatRestores(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3)
	for _, s := range c.Running() {
		_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
			return signed.Put(tx, s.MemberID(), wrapperspb.String(s.MemberID()))
		})
		require.NoError(t, err)
		s.Snapshots().Survive("test", func(_, _ *raftstore.View, tx *raftstore.Tx) error {
			return signed.Put(tx, "carried", wrapperspb.String("member-9"))
		})
	}
	saved := save(t, c.Store(0))
	for _, s := range c.Running() {
		restore(t, s, saved)
		rows, err := signed.List(s.View(), "")
		require.NoError(t, err)
		require.Len(t, rows, 4)
		for _, row := range rows {
			require.Equal(t, s.MemberID(), row.Value.GetValue(), row.Key)
		}
	}
}

func TestLostAnswersApplyOnce(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3)
	leader := c.Leader()
	follower := c.Store((leader + 1) % 3)
	for range 10 {
		c.LoseAnswers(2)
		_, err := follower.Update(t.Context(), func(tx *raftstore.Tx) error { return increment(tx, "n") })
		require.NoError(t, err)
	}
	require.Equal(t, "10", value(t, follower, "n"))
}

func TestRestartsKeepEverything(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3)
	for i := range 6 {
		put(t, c.Store(c.Leader()), fmt.Sprint("k", i), "v")
		victim := c.Leader()
		c.Kill(victim)
		put(t, c.Store(c.Leader()), fmt.Sprint("l", i), "v")
		c.Restart(victim)
	}
	c.AwaitCaughtUp()
	for _, s := range c.Running() {
		rows, err := words.List(s.View(), "")
		require.NoError(t, err)
		require.Len(t, rows, 12, s.MemberID())
	}
}

func TestWithoutQuorum(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3, func(_ int, c *raftstore.Config) { c.Timing.LeaderWait = 2 * time.Second })
	at := put(t, c.Store(0), "k", "v")
	leader := c.Leader()
	c.Partition(leader)
	cutOff := c.Store(leader)
	c.Leader((leader+1)%3, (leader+2)%3)

	// The outcome of the first may be unknown, because the leader did not know yet that it is cut off.
	_, err := cutOff.Update(
		t.Context(),
		func(tx *raftstore.Tx) error { return words.Put(tx, "k", wrapperspb.String("w")) },
	)
	require.True(t, errors.Is(err, raftstore.ErrNoLeader) || errors.Is(err, raftstore.ErrUnknownOutcome), "%v", err)
	_, err = cutOff.Update(
		t.Context(),
		func(tx *raftstore.Tx) error { return words.Put(tx, "k", wrapperspb.String("w")) },
	)
	require.ErrorIs(t, err, raftstore.ErrNoLeader)
	_, err = cutOff.Read(t.Context(), raftstore.ReadOptions{Linearizable: true})
	require.ErrorIs(t, err, raftstore.ErrNoLeader)
	require.Equal(t, "v", value(t, cutOff, "k"), "stale reads work without a leader")
	require.GreaterOrEqual(t, cutOff.View().Revision(), at)

	put(t, c.Store((leader+1)%3), "k", "x")
	c.Heal()
	c.AwaitCaughtUp()
	require.Equal(t, "x", value(t, cutOff, "k"))
}

func TestContendedRowStarvesNoWriter(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3)
	const writers, each = 4, 15
	var group sync.WaitGroup
	for i := range 3 * writers {
		s := c.Store(i % 3)
		group.Go(func() {
			for range each {
				_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error { return increment(tx, "n") })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	c.AwaitCaughtUp()
	require.Equal(t, fmt.Sprint(3*writers*each), value(t, c.Store(0), "n"))
}

func TestTransferAndRemoval(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3)
	leader := c.Leader()
	next := (leader + 1) % 3
	require.NoError(t, c.Store(leader).Servers().TransferLeadership(t.Context(), c.Store(next).MemberID()))
	require.Equal(t, next, c.Leader())
	require.NoError(t, c.Store(next).Servers().Remove(t.Context(), c.Store(leader).MemberID()))
	require.Len(t, c.Store(next).Servers().List(), 2)
	put(t, c.Store(next), "k", "v")
	require.ErrorIs(t, c.Store(next).Servers().Remove(t.Context(), "nobody"), raftstore.ErrNotMember)
}

func increment(tx *raftstore.Tx, key string) error {
	row, ok, err := words.Get(tx, key)
	if err != nil {
		return err
	}
	n := 0
	if ok {
		if _, err := fmt.Sscan(row.Value.GetValue(), &n); err != nil {
			return err
		}
	}
	return words.Put(tx, key, wrapperspb.String(fmt.Sprint(n+1)))
}
