package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// badDisk is a disk that can be full, hang or fail, below a log and a stable store.
type badDisk struct {
	*raft.InmemStore
	mu    sync.Mutex
	fault error
	hung  chan struct{}
	space Space
	calls int
	// unanswered holds back the answers on the free space until it is closed.
	unanswered chan struct{}
}

func (b *badDisk) set(fault error, hung chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault, b.hung = fault, hung
}

func (b *badDisk) call() error {
	b.mu.Lock()
	fault, hung := b.fault, b.hung
	b.calls++
	b.mu.Unlock()
	if hung != nil {
		<-hung
	}
	if fault != nil {
		return &os.PathError{Op: "write", Path: "raft.db", Err: fault}
	}
	return nil
}

func (b *badDisk) made() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

func (b *badDisk) StoreLog(*raft.Log) error                { return b.call() }
func (b *badDisk) StoreLogs([]*raft.Log) error             { return b.call() }
func (b *badDisk) DeleteRange(uint64, uint64) error        { return b.call() }
func (b *badDisk) GetLog(uint64, *raft.Log) error          { return b.call() }
func (b *badDisk) Set([]byte, []byte) error                { return b.call() }
func (b *badDisk) SetUint64(key []byte, term uint64) error { return b.call() }
func (b *badDisk) GetUint64([]byte) (uint64, error)        { return 0, b.call() }
func (b *badDisk) Touch() error                            { return b.call() }
func (b *badDisk) Room() error                             { return b.call() }

func (b *badDisk) Space() (Space, error) {
	b.mu.Lock()
	unanswered := b.unanswered
	space := b.space
	b.mu.Unlock()
	if unanswered != nil {
		<-unanswered
	}
	return space, nil
}

// onBadDisk returns a store on a bad disk, and what receives the error with which the member stops.
func onBadDisk() (*badDisk, *timedStore, chan error) {
	bad := &badDisk{InmemStore: raft.NewInmemStore()}
	stopped := make(chan error, 10)
	health := newHealth(Config{
		Limit: 5 * time.Second, Fail: func(err error) { stopped <- err }, Observe: func(time.Duration) {},
		Probe: bad, Logger: hclog.NewNullLogger(),
	})
	health.serving.Store(true)
	return bad, &timedStore{log: bad, stable: bad, health: health}, stopped
}

const hangs = "the disk of the data folder hangs or is far too slow: "

// A hung disk is noticed within two seconds, whatever call meets it first, and early enough that the others learn of it
// in that time. It is fatal after the limit.
func TestHungDiskIsNoticed(t *testing.T) {
	for name, want := range map[string]string{
		"by a write": "writing to the log", "by a probe": "writing a probe",
		"by the free space": "reading the free space",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bad, store, stopped := onBadDisk()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go store.health.Run(ctx)
				time.Sleep(1600 * time.Millisecond)
				require.NoError(t, store.health.Err())

				hung := make(chan struct{})
				switch want {
				case "reading the free space":
					bad.mu.Lock()
					bad.unanswered = hung
					bad.mu.Unlock()
				case "writing to the log":
					bad.set(nil, hung)
					go func() { _ = store.StoreLogs(nil) }()
				default:
					bad.set(nil, hung)
				}
				time.Sleep(1800 * time.Millisecond)
				require.ErrorContains(t, store.health.Err(), hangs+want)
				require.NoError(t, store.health.CannotVote(), "a slow disk can still keep a vote")
				time.Sleep(1500 * time.Millisecond)
				require.ErrorContains(t, store.health.CannotVote(), hangs)
				require.Empty(t, stopped)
				time.Sleep(3 * time.Second)
				require.ErrorContains(t, <-stopped,
					"has not returned for 5s; the disk of the data folder hangs or is far too slow")

				bad.set(nil, nil)
				bad.mu.Lock()
				bad.unanswered = nil
				bad.mu.Unlock()
				close(hung)
				synctest.Wait()
				require.NoError(t, store.health.Err())
			})
		})
	}
}

// A full disk is noticed within two seconds without a write, by the room that is left or by a probe, and so is that
// there is room again.
func TestFullDiskIsNoticed(t *testing.T) {
	for name, test := range map[string]struct {
		fault error
		space Space
		want  string
	}{
		"no room is left": {nil, Space{Free: leastFree - 1, Total: 100 * leastFree},
			"the disk of the data folder is full: 8388607 bytes are free; " +
				"make room, and the member continues by itself"},
		"a probe fails": {syscall.ENOSPC, Space{},
			"the disk of the data folder is full: write raft.db: no space left on device; " +
				"make room, and the member continues by itself"},
		"the quota is used up": {syscall.EDQUOT, Space{Free: 1 << 40, Total: 1 << 41},
			"the disk of the data folder is full: write raft.db: disk quota exceeded; " +
				"make room, and the member continues by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bad, store, stopped := onBadDisk()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go store.health.Run(ctx)
				time.Sleep(1500 * time.Millisecond)
				bad.mu.Lock()
				bad.fault, bad.space = test.fault, test.space
				bad.mu.Unlock()
				time.Sleep(2 * time.Second)
				require.EqualError(t, store.health.Err(), test.want)
				require.EqualError(t, store.health.CannotVote(), test.want)

				bad.mu.Lock()
				bad.fault, bad.space = nil, Space{Free: enoughFree, Total: 100 * enoughFree}
				bad.mu.Unlock()
				time.Sleep(2 * time.Second)
				require.NoError(t, store.health.Err())
				require.Empty(t, stopped, "a full disk stops no member")
			})
		})
	}
}

// Without room a member writes no vote, and the loss of its term, at which Raft panics, waits for room.
func TestTermWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, store, stopped := onBadDisk()
		bad.set(syscall.ENOSPC, nil)
		require.ErrorIs(t, store.StoreLog(&raft.Log{}), syscall.ENOSPC)
		before := bad.made()
		require.ErrorContains(t, store.SetUint64([]byte("LastVoteTerm"), 3), "the disk of the data folder is full")
		require.ErrorContains(t, store.Set([]byte("LastVoteCand"), []byte("m2")), "the disk of the data folder is full")
		require.Equal(t, before, bad.made(), "a vote was begun")

		done := make(chan error, 1)
		go func() { done <- store.SetUint64([]byte(currentTerm), 3) }()
		synctest.Wait()
		require.Empty(t, done)
		bad.set(nil, nil)
		store.health.probe()
		require.NoError(t, <-done)
		require.NoError(t, store.Set([]byte("LastVoteCand"), []byte("m2")))
		require.Empty(t, stopped)
	})
}

// ended runs a function in a goroutine, and reports whether it returned.
func ended(run func()) (returned bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		run()
		returned = true
	}()
	<-done
	return returned
}

// Any other fault stops the member in one line, and never reaches Raft, which would panic.
func TestFaultStopsTheMember(t *testing.T) {
	const vote = "writing a vote or term"
	for name, test := range map[string]struct {
		call func(*timedStore) error
		what string
	}{
		"an append": {func(s *timedStore) error { return s.StoreLogs(nil) }, "writing to the log"},
		"one entry": {func(s *timedStore) error { return s.StoreLog(&raft.Log{}) }, "writing to the log"},
		"a removal": {func(s *timedStore) error { return s.DeleteRange(1, 2) }, "truncating the log"},
		"a term":    {func(s *timedStore) error { return s.SetUint64([]byte(currentTerm), 2) }, vote},
		"a vote":    {func(s *timedStore) error { return s.Set([]byte("LastVoteCand"), nil) }, vote},
		"a read":    {func(s *timedStore) error { return s.GetLog(1, &raft.Log{}) }, "reading from the log"},
		"a probe":   {func(s *timedStore) error { s.health.probe(); return nil }, "writing a probe"},
		"the term read": {
			func(s *timedStore) error { _, err := s.GetUint64([]byte(currentTerm)); return err },
			"reading a vote or term",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad, store, stopped := onBadDisk()
			bad.set(syscall.EIO, nil)
			for range 2 { // the second is not reported
				require.False(t, ended(func() { _ = test.call(store) }), "the call returned to Raft")
			}
			want := "member stopped: " + test.what + " failed: write raft.db: input/output error; " +
				"check the disk of the data folder"
			require.EqualError(t, <-stopped, want)
			require.Empty(t, stopped)
			require.EqualError(t, store.health.Err(), want)
			require.EqualError(t, store.health.CannotVote(), want)
		})
	}
}

// Before Raft runs, errors are returned.
func TestFaultBeforeTheStart(t *testing.T) {
	bad, store, stopped := onBadDisk()
	store.health.serving.Store(false)
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		bad.set(fault, nil)
		require.ErrorIs(t, store.SetUint64([]byte(currentTerm), 2), fault)
		require.ErrorIs(t, store.GetLog(1, &raft.Log{}), fault)
	}
	require.Empty(t, stopped)
}

// A call after the store was closed, such as that of a heartbeat that was received before, ends its goroutine; and so
// does one that waits for room when the store is closed. Raft would panic at an error.
func TestCallsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, store, stopped := onBadDisk()
		bad.set(syscall.ENOSPC, nil)
		waited := make(chan bool, 1)
		go func() { waited <- ended(func() { _ = store.SetUint64([]byte(currentTerm), 2) }) }()
		synctest.Wait()
		require.Empty(t, waited)
		store.health.close()
		require.False(t, <-waited)

		bad.set(errors.New("database not open"), nil)
		require.False(t, ended(func() { _ = store.SetUint64([]byte(currentTerm), 3) }))
		require.False(t, ended(func() { _ = store.GetLog(1, &raft.Log{}) }))
		require.Empty(t, stopped)
	})
}

// Closing waits for the calls that run.
func TestCloseWaitsForCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, store, _ := onBadDisk()
		hung := make(chan struct{})
		bad.set(nil, hung)
		go func() { _ = store.StoreLogs(nil) }()
		synctest.Wait()
		closed := make(chan struct{})
		go func() { store.health.close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("closed while a call runs")
		default:
		}
		close(hung)
		<-closed
	})
}

func TestMedian(t *testing.T) {
	now := time.Unix(1000, 0)
	var s samples
	require.Zero(t, s.median(now, 0))
	require.Equal(t, 3*time.Second, s.median(now, 3*time.Second), "a write that runs counts")
	s.add(now.Add(-11*time.Second), time.Hour) // too old
	for _, took := range []int{5, 1, 9} {
		s.add(now.Add(-time.Second), time.Duration(took)*time.Millisecond)
	}
	require.Equal(t, 5*time.Millisecond, s.median(now, 0))
	require.True(t, s.since(now.Add(-2*time.Second)))
	require.False(t, s.since(now.Add(-time.Second)))
	for range 2 * maxSamples {
		s.add(now, time.Millisecond)
	}
	require.Equal(t, time.Millisecond, s.median(now, 0))
}

func TestJudgeSpace(t *testing.T) {
	for _, test := range []struct {
		was  warning
		free uint64
		want warning
	}{
		{roomEnough, 100, roomEnough},
		{roomEnough, 10, roomEnough},
		{roomEnough, 9, roomLow},
		{roomLow, 10, roomLow},
		{roomLow, 11, roomEnough},
		{roomLow, 5, roomLow},
		{roomLow, 4, roomScarce},
		{roomEnough, 4, roomScarce},
		{roomScarce, 5, roomScarce},
		{roomScarce, 6, roomLow},
		{roomScarce, 50, roomEnough},
	} {
		require.Equal(t, test.want, judgeSpace(test.was, Space{Free: test.free, Total: 100}), "%+v", test)
	}
	require.Equal(t, roomEnough, judgeSpace(roomLow, Space{}), "no limit is known")
}

// slowSnapshots takes its time for each byte, more for all than the limit of a call.
type slowSnapshots struct{ raft.SnapshotStore }

type slowSink struct{ raft.SnapshotSink }

func (slowSnapshots) Create(
	raft.SnapshotVersion, uint64, uint64, raft.Configuration, uint64, raft.Transport,
) (raft.SnapshotSink, error) {
	return slowSink{}, nil
}

func (slowSink) Write(p []byte) (int, error) {
	time.Sleep(4 * time.Second)
	return len(p), nil
}

func (slowSink) Close() error {
	time.Sleep(8 * time.Second)
	return nil
}

// A snapshot that goes on slowly is fine, however long it takes; one that does not go on is fatal.
func TestSnapshotsAreWatchedByProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, stopped := onBadDisk()
		snapshots := watchedSnapshots{slowSnapshots{}, store.health}
		sink, err := snapshots.Create(raft.SnapshotVersionMax, 1, 1, raft.Configuration{}, 1, nil)
		require.NoError(t, err)
		for range 4 {
			_, err = sink.Write(make([]byte, leastRate))
			require.NoError(t, err)
		}
		require.NoError(t, sink.Close())
		require.Empty(t, stopped)

		sink, err = snapshots.Create(raft.SnapshotVersionMax, 2, 1, raft.Configuration{}, 1, nil)
		require.NoError(t, err)
		require.NoError(t, sink.Close())
		require.EqualError(t, <-stopped, "member stopped: syncing a snapshot has not returned for 5s; "+
			"the disk of the data folder hangs or is far too slow")
	})
}

// The probes of a folder leave one small file, and report the room.
func TestFolderProbes(t *testing.T) {
	dir := t.TempDir()
	f := folder{dir: dir}
	for range 2 {
		require.NoError(t, f.Touch())
		require.NoError(t, f.Room())
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
	space, err := f.Space()
	require.NoError(t, err)
	require.Positive(t, space.Total)
	require.LessOrEqual(t, space.Free, space.Total)
	missing := folder{dir: dir + "/none"}
	require.ErrorIs(t, missing.Touch(), os.ErrNotExist)
	require.ErrorIs(t, missing.Room(), os.ErrNotExist)
}

// A damaged record stops the member too, with the error of the file.
func TestDamageStopsTheMember(t *testing.T) {
	bad, store, stopped := onBadDisk()
	damaged := fmt.Errorf("entry 7: %w", ErrDamaged)
	store.log = damagedLog{bad, damaged}
	require.False(t, ended(func() { _ = store.GetLog(7, &raft.Log{}) }), "the call returned to Raft")
	require.Equal(t, damaged, <-stopped)
	require.Equal(t, damaged, store.health.Err())
}

type damagedLog struct {
	raft.LogStore
	err error
}

func (d damagedLog) GetLog(uint64, *raft.Log) error { return d.err }
