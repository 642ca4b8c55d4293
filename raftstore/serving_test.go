package raftstore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// impatient makes a member that finds no leader serve soon.
func impatient(_ int, c *raftstore.Config) { c.Timing.LeaderWait = 500 * time.Millisecond }

// await waits until a condition holds that the store brings about by itself.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, waitLimit, 5*time.Millisecond, what)
}

// A restarted member without a majority serves exactly what it had published, over a snapshot too, and returns to the
// present once it reaches a leader.
func TestRestartWithoutMajority(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		c := raftstoretest.NewCluster(t, 3, impatient)
		for range 20 {
			put(t, c.Store(0), "k", "before")
		}
		if compacted {
			_, _, err := raftstore.Compact(c.Store(0))
			require.NoError(t, err)
		}
		put(t, c.Store(0), "k", "served")
		published, want := c.Store(0).View().Revision(), content(t, c.Store(0).View())
		c.Kill(0)
		latest := put(t, c.Store(c.Leader()), "k", "revoked meanwhile")
		c.Kill(1)
		c.Kill(2)

		s := c.Restart(0)
		require.NoError(t, s.Serving().AwaitLoaded(t.Context()))
		require.NoError(t, s.Serving().Await(t.Context()))
		require.NoError(t, s.Serving().Err())
		require.Equal(t, published, s.View().Revision())
		require.Equal(t, want, content(t, s.View()))
		at, unconfirmed := s.Serving().Unconfirmed()
		require.True(t, unconfirmed)
		require.Equal(t, published, at)
		_, err := s.Read(t.Context(), raftstore.ReadOptions{Linearizable: true})
		require.ErrorIs(t, err, raftstore.ErrNoLeader)
		_, err = s.Update(t.Context(), func(tx *raftstore.Tx) error { return words.Delete(tx, "k") })
		require.ErrorIs(t, err, raftstore.ErrNoLeader)

		c.Restart(1)
		c.Restart(2)
		await(t, "the member returns to the present", func() bool {
			at, unconfirmed := s.Serving().Unconfirmed()
			return !unconfirmed && at >= latest
		})
		require.Equal(t, "revoked meanwhile", value(t, s, "k"))
	}
}

// What a member has in its log and had not applied may be uncommitted: it is not loaded.
func TestRestartIgnoresTheEndOfTheLog(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3, impatient)
	leader := c.Leader()
	put(t, c.Store(leader), "k", "committed")
	published := c.Store(leader).View().Revision()
	c.Partition(leader)
	lost := make(chan error, 1)
	before := raftstore.LastIndex(c.Store(leader))
	go func() {
		_, err := c.Store(leader).Update(t.Context(), func(tx *raftstore.Tx) error { return words.Delete(tx, "k") })
		lost <- err
	}()
	await(t, "the write is in the log", func() bool { return raftstore.LastIndex(c.Store(leader)) > before })
	for i := range 3 {
		c.Kill(i)
	}
	require.Error(t, <-lost)

	s := c.Restart(leader)
	require.NoError(t, s.Serving().Await(t.Context()))
	require.Greater(t, raftstore.LastIndex(s), before)
	require.Equal(t, published, s.View().Revision())
	require.Equal(t, "committed", value(t, s, "k"))
}

// A member that has no state, or whose record is damaged, serves nothing before it has reached a leader.
func TestUnknownStateIsNotServed(t *testing.T) {
	l := newLoopback(t)
	s, stop, err := l.open("m1")
	require.NoError(t, err)
	require.NoError(t, s.Serving().AwaitLoaded(t.Context()))
	require.EqualError(t, s.Serving().Err(), "starting: waiting for a leader, at revision 0")
	require.NoError(t, s.Bootstrap())
	require.NoError(t, s.Serving().Await(t.Context()))
	put(t, s, "k", "v")
	require.NoError(t, s.Servers().AddVoter(t.Context(), l.server("m2")))
	require.NoError(t, stop())

	record := filepath.Join(l.dataDir("m1"), "applied")
	raw, err := os.ReadFile(record)
	require.NoError(t, err)
	raw[20] ^= 1
	require.NoError(t, os.WriteFile(record, raw, 0o600))
	s, stop, err = l.open("m1")
	require.NoError(t, err)
	require.NoError(t, s.Serving().AwaitLoaded(t.Context()))
	_, err = s.Read(t.Context(), raftstore.ReadOptions{Linearizable: true})
	require.ErrorIs(t, err, raftstore.ErrNoLeader, "the other voter does not run")
	require.ErrorContains(t, s.Serving().Err(), "starting: waiting for a leader, at revision ")
	require.NoError(t, stop())
}

// A loss of power takes what the record of the applied revision had not on the disk yet. The log has the revision as it
// was at its last write.
func TestRestartAfterALossOfPower(t *testing.T) {
	l := newLoopback(t)
	s, stop, err := l.open("m1")
	require.NoError(t, err)
	require.NoError(t, s.Bootstrap())
	awaitLeadership(t.Context(), t, s)
	put(t, s, "k", "1")
	record := filepath.Join(l.dataDir("m1"), "applied")
	onDisk, err := os.ReadFile(record)
	require.NoError(t, err)
	published := put(t, s, "k", "2")
	require.NoError(t, s.Servers().AddVoter(t.Context(), l.server("m2")))
	require.NoError(t, stop())

	for range 2 { // also when the power is lost again before anything new was published
		require.NoError(t, os.WriteFile(record, onDisk, 0o600))
		s, stop, err = l.open("m1")
		require.NoError(t, err)
		require.NoError(t, s.Serving().Await(t.Context()))
		require.GreaterOrEqual(t, s.View().Revision(), published)
		require.Equal(t, "2", value(t, s, "k"))
		require.NoError(t, stop())
	}
}

// The log alone was replaced by an older copy: the member must not vote with it.
func TestOlderLogIsRefused(t *testing.T) {
	l := newLoopback(t)
	s, stop, err := l.open("m1")
	require.NoError(t, err)
	require.NoError(t, s.Bootstrap())
	awaitLeadership(t.Context(), t, s)
	old := put(t, s, "k", "1")
	require.NoError(t, stop())
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(copied, os.DirFS(l.dataDir("m1"))))

	s, stop, err = l.open("m1")
	require.NoError(t, err)
	awaitLeadership(t.Context(), t, s)
	require.Greater(t, put(t, s, "k", "2"), old)
	require.NoError(t, stop())
	record, err := os.ReadFile(filepath.Join(l.dataDir("m1"), "applied"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(copied, "applied"), record, 0o600))
	require.NoError(t, os.RemoveAll(l.dataDir("m1")))
	require.NoError(t, os.CopyFS(l.dataDir("m1"), os.DirFS(copied)))
	_, _, err = l.open("m1")
	require.ErrorContains(t, err,
		"open the store: the log is damaged, or an older copy: this member had applied revision ")
	require.ErrorContains(t, err, "; run 'entente cluster repair m1' against another member, then start this one "+
		"again: it is rebuilt from the others and keeps its id and keys")
}

// A member with 47,000 rows that is killed and started again serves nothing before it has all of them: whoever looks at
// any moment sees that it is starting, or everything.
func TestManyRowsOverARestart(t *testing.T) {
	const rows, perWrite = 47_000, 1_000
	l := newLoopback(t)
	s, stop, err := l.open("m1")
	require.NoError(t, err)
	require.NoError(t, s.Bootstrap())
	awaitLeadership(t.Context(), t, s)
	for from := 0; from < rows; from += perWrite {
		_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
			for n := from; n < from+perWrite; n++ {
				if err := words.Put(tx, fmt.Sprintf("row/%05d", n), wrapperspb.String("small")); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(t, err)
	}
	published := s.View().Revision()
	require.NoError(t, stop())

	s, stop, err = l.open("m1")
	require.NoError(t, err)
	looks, starting := 0, 0
	for served := false; !served; looks++ {
		if err := s.Serving().Err(); err != nil {
			require.ErrorContains(t, err, "starting: ")
			_, err = s.Read(t.Context(), raftstore.ReadOptions{MinRevision: published})
			if err != nil { // it can have been loaded meanwhile
				require.ErrorContains(t, err, "starting: ")
			}
			starting++
			runtime.Gosched()
			continue
		}
		served = true
		require.GreaterOrEqual(t, s.View().Revision(), published)
		list, err := words.List(s.View(), "row/")
		require.NoError(t, err)
		require.Len(t, list, rows)
	}
	t.Logf("%d of %d looks saw it starting", starting, looks)
	require.NoError(t, stop())
}

// What only a leader may do, such as ending leases and relationships, nobody does on a member that has none: it serves
// what it had, for as long as that lasts, and leads nothing.
func TestNothingIsLedWithoutAMajority(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3, impatient)
	put(t, c.Store(0), "k", "v")
	for i := range 3 {
		c.Kill(i)
	}
	s := c.Restart(0)
	var led atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var loop sync.WaitGroup
	loop.Go(func() { _ = s.WhileLeading(ctx, func(context.Context) { led.Add(1) }) })
	defer loop.Wait()
	defer cancel()
	require.NoError(t, s.Serving().Await(t.Context()))
	_, unconfirmed := s.Serving().Unconfirmed()
	require.True(t, unconfirmed)
	// It stands for election meanwhile, again and again: writes wait for the outcome.
	for range 3 {
		_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error { return words.Delete(tx, "k") })
		require.ErrorIs(t, err, raftstore.ErrNoLeader)
	}
	require.Zero(t, led.Load())
	require.False(t, s.IsLeader())
	require.Equal(t, "v", value(t, s, "k"))
}
