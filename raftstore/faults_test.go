package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/internal/disk"
)

// waitLimit bounds waits, so that a test that hangs ends with a message. It is far longer than anything takes on a busy
// machine.
const waitLimit = 5 * time.Minute

// faultyLog is a log store whose disk can be full, hang, or fail. Its probes meet the same.
type faultyLog struct {
	raft.LogStore
	full, failing atomic.Bool
	hung          atomic.Pointer[chan struct{}]
}

func (f *faultyLog) StoreLog(log *raft.Log) error { return f.StoreLogs([]*raft.Log{log}) }

func (f *faultyLog) StoreLogs(logs []*raft.Log) error {
	if err := f.Touch(); err != nil {
		return err
	}
	return f.LogStore.StoreLogs(logs)
}

func (f *faultyLog) Touch() error {
	if hung := f.hung.Load(); hung != nil {
		<-*hung
	}
	switch {
	case f.full.Load():
		return &os.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC}
	case f.failing.Load():
		return &os.PathError{Op: "write", Path: "raft.db", Err: syscall.EIO}
	}
	return nil
}

func (f *faultyLog) Room() error { return f.Touch() }

func (f *faultyLog) Space() (disk.Space, error) { return disk.Space{}, nil }

// acknowledged makes writes, each of a key of its own, and remembers those that were acknowledged.
type acknowledged struct {
	mu   sync.Mutex
	keys []string
}

// write makes one write and reports whether it was acknowledged.
func (a *acknowledged) write(ctx context.Context, s *raftstore.Store, key string) bool {
	_, err := s.Update(ctx, func(tx *raftstore.Tx) error { return words.Put(tx, key, wrapperspb.String("v")) })
	if err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.keys = append(a.keys, key)
	}
	return err == nil
}

func (a *acknowledged) requireAll(t testing.TB, v *raftstore.View) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range a.keys {
		_, ok, err := words.Get(v, key)
		require.NoError(t, err)
		require.True(t, ok, "the write of %s was acknowledged, and is lost", key)
	}
}

// writeMore makes writes through s until n of them were acknowledged.
func (a *acknowledged) writeMore(t testing.TB, s *raftstore.Store, what string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	for i := 0; n > 0; i++ {
		require.NoError(t, ctx.Err(), "writes through %s are not acknowledged", s.MemberID())
		if a.write(ctx, s, fmt.Sprintf("%s/%s/%d", what, s.MemberID(), i)) {
			n--
		}
	}
}

// leaderOf waits until one of the stores proves that it leads, and returns its number.
func leaderOf(t testing.TB, stores []*raftstore.Store) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	for {
		require.NoError(t, ctx.Err(), "no member comes to lead")
		for i, s := range stores {
			if !s.IsLeader() {
				continue
			}
			if _, err := s.Read(ctx, raftstore.ReadOptions{Linearizable: true}); err == nil && s.IsLeader() {
				return i
			}
		}
		// Waits, as every read of a member without a leader does.
		_, _ = stores[0].Read(ctx, raftstore.ReadOptions{Linearizable: true})
	}
}

// linearizable reads until there is a leader that answers, which may take a while after a member was stopped.
func linearizable(t testing.TB, s *raftstore.Store) *raftstore.View {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	for {
		v, err := s.Read(ctx, raftstore.ReadOptions{Linearizable: true})
		if err == nil {
			return v
		}
		require.True(t, errors.Is(err, raftstore.ErrNoLeader) || errors.Is(err, raftstore.ErrBehind), "%v", err)
	}
}

// faulty forms a cluster whose disks can be made to fail.
func faulty(t testing.TB, limit time.Duration) ([]*raftstore.Store, []*faultyLog, chan error) {
	t.Helper()
	var logs []*faultyLog
	stopped := make(chan error, len(benchMembers))
	stores := newLoopback(t).form(t, benchMembers, func(c *raftstore.Config) {
		log := &faultyLog{}
		logs = append(logs, log)
		raftstore.WrapLog(c, func(below raft.LogStore) raft.LogStore {
			log.LogStore = below
			return log
		})
		raftstore.ReplaceProbe(c, log)
		c.Timing.Disk = limit
		c.Timing.LeaderWait = 2 * time.Second
		c.Fatal = func(err error) { stopped <- err }
	})
	return stores, logs, stopped
}

// A full disk keeps a member from taking part in new writes, and loses no acknowledged one. A leader gives the lead up,
// and is not elected again before it has room, not even by a transfer.
func TestFullDisk(t *testing.T) {
	stores, logs, stopped := faulty(t, 0)
	var acks acknowledged
	acks.writeMore(t, stores[0], "before", 10)

	full := leaderOf(t, stores)
	logs[full].full.Store(true)
	others := []*raftstore.Store{stores[(full+1)%3], stores[(full+2)%3]}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	led := make(chan struct{}, 100)
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = stores[full].WhileLeading(ctx, func(ctx context.Context) { led <- struct{}{}; <-ctx.Done() })
	})
	acks.write(t.Context(), stores[full], "into the full disk") // may or may not be acknowledged
	for _, s := range others {
		acks.writeMore(t, s, "meanwhile", 10)
	}
	acks.requireAll(t, linearizable(t, others[0]))
	require.EqualError(t, stores[full].Disk().Err(), "the disk of the data folder is full: write raft.db: "+
		"no space left on device; make room, and the member continues by itself")
	now := others[leaderOf(t, others)]
	require.Error(t, now.Servers().TransferLeadership(t.Context(), stores[full].MemberID()))
	acks.writeMore(t, now, "after a refused transfer", 10)
	require.False(t, stores[full].IsLeader())
	cancel()
	watching.Wait()
	require.LessOrEqual(t, len(led), 1, "the member with the full disk was elected again")

	logs[full].full.Store(false)
	acks.writeMore(t, stores[full], "after", 10)
	for _, s := range stores {
		acks.requireAll(t, linearizable(t, s))
	}
	require.Empty(t, stopped, "a full disk stops no member")
	// It has its vote again: without it there is no majority.
	awaitDisk(t, stores[full])
	require.Eventually(t, func() bool {
		leader := stores[leaderOf(t, stores)]
		return leader == stores[full] ||
			leader.Servers().TransferLeadership(t.Context(), stores[full].MemberID()) == nil && stores[full].IsLeader()
	}, waitLimit, time.Millisecond)
	acks.writeMore(t, stores[full], "as the leader", 10)
}

// awaitDisk waits until the disk of a member accepts writes.
func awaitDisk(t testing.TB, s *raftstore.Store) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Disk().Err() == nil }, waitLimit, time.Millisecond)
}

// A member whose disk fails leaves Raft with one line, and the others continue.
func TestFailingDisk(t *testing.T) {
	stores, logs, stopped := faulty(t, 0)
	var acks acknowledged
	acks.writeMore(t, stores[0], "before", 10)
	failing := leaderOf(t, stores)
	logs[failing].failing.Store(true)
	acks.write(t.Context(), stores[failing], "into the failing disk")
	select {
	case err := <-stopped:
		// A probe or the write may come first.
		require.Regexp(t, "^member stopped: writing (to the log|a probe) failed: write raft.db: input/output error; "+
			"check the disk of the data folder$", err.Error())
	case <-time.After(waitLimit):
		t.Fatal("the failing disk was not detected")
	}
	others := []*raftstore.Store{stores[(failing+1)%3], stores[(failing+2)%3]}
	for _, s := range others {
		acks.writeMore(t, s, "meanwhile", 10)
		acks.requireAll(t, linearizable(t, s))
	}
	require.False(t, stores[failing].IsLeader())
	_, known := stores[failing].Leader()
	require.False(t, known)
	require.Empty(t, stopped)
}

// With a majority of full disks nothing is acknowledged, and writes continue once there is room.
func TestMajorityOfFullDisks(t *testing.T) {
	stores, logs, _ := faulty(t, 0)
	var acks acknowledged
	acks.writeMore(t, stores[0], "before", 10)
	for _, log := range logs[:2] {
		log.full.Store(true)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	for i, s := range stores {
		require.False(t, acks.write(ctx, s, fmt.Sprint("meanwhile/", i)))
		_, ok, err := words.Get(s.View(), "before/m1/0")
		require.NoError(t, err)
		require.True(t, ok, "stale reads work without a leader")
	}
	for _, log := range logs {
		log.full.Store(false)
	}
	acks.writeMore(t, stores[2], "after", 10)
	for _, s := range stores {
		acks.requireAll(t, linearizable(t, s))
	}
}

// A leader whose disk hangs leaves Raft, and the others continue.
func TestHungDisk(t *testing.T) {
	const limit = 5 * time.Second // a busy disk of another member stays below it
	stores, logs, stopped := faulty(t, limit)
	var acks acknowledged
	acks.writeMore(t, stores[0], "before", 10)

	hung := leaderOf(t, stores)
	blocked := make(chan struct{})
	logs[hung].hung.Store(&blocked)
	defer close(blocked) // before the stores are closed
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { acks.write(ctx, stores[hung], "into the hung disk") })

	select {
	case err := <-stopped:
		require.Regexp(t, "^member stopped: writing (to the log|a probe) has not returned for 5s; "+
			"the disk of the data folder hangs or is far too slow$", err.Error())
	case <-ctx.Done():
		t.Fatal("the hung disk was not detected")
	}
	others := []*raftstore.Store{stores[(hung+1)%3], stores[(hung+2)%3]}
	for _, s := range others {
		acks.writeMore(t, s, "meanwhile", 10)
		acks.requireAll(t, linearizable(t, s))
	}
	require.NotEqual(t, stores[hung].MemberID(), others[leaderOf(t, others)].MemberID())
	require.False(t, stores[hung].IsLeader())
	_, known := stores[hung].Leader()
	require.False(t, known, "a member that has left reports no leader, which Raft, which hangs, still has")
	require.ErrorContains(t, stores[hung].Disk().Err(), "the disk of the data folder hangs or is far too slow")
	cancel()
}

// Without a majority a write fails with the reason, and the state can still be read.
func TestLostQuorumFailsWrites(t *testing.T) {
	l := newLoopback(t)
	var stops []func() error
	var stores []*raftstore.Store
	for _, member := range benchMembers {
		s, stop, err := l.open(member, func(c *raftstore.Config) { c.Timing.LeaderWait = time.Second })
		require.NoError(t, err)
		stores, stops = append(stores, s), append(stops, stop)
	}
	require.NoError(t, stores[0].Bootstrap())
	awaitLeadership(t.Context(), t, stores[0])
	for _, member := range benchMembers[1:] {
		require.NoError(t, stores[0].Servers().AddVoter(t.Context(), l.server(member)))
	}
	var acks acknowledged
	acks.writeMore(t, stores[0], "before", 1)
	require.NoError(t, stops[1]())
	require.NoError(t, stops[2]())
	defer func() { require.NoError(t, stops[0]()) }()

	// The outcome of the first may be unknown, because it may have been sent before the others stopped.
	_, err := stores[0].Update(t.Context(), func(tx *raftstore.Tx) error {
		return words.Put(tx, "k", wrapperspb.String("v"))
	})
	require.True(t, errors.Is(err, raftstore.ErrNoLeader) || errors.Is(err, raftstore.ErrUnknownOutcome), "%v", err)
	_, err = stores[0].Update(t.Context(), func(tx *raftstore.Tx) error {
		return words.Put(tx, "k", wrapperspb.String("v"))
	})
	require.ErrorIs(t, err, raftstore.ErrNoLeader)
	require.NotErrorIs(t, err, raftstore.ErrUnknownOutcome)
	_, err = stores[0].Read(t.Context(), raftstore.ReadOptions{Linearizable: true})
	require.ErrorIs(t, err, raftstore.ErrNoLeader)
	acks.requireAll(t, stores[0].View())
}
