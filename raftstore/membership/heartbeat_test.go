package membership

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// slowLeader answers heartbeats after a while.
type slowLeader struct {
	grpc.ClientConnInterface
	wait func()
}

func (l slowLeader) Conn(string) (grpc.ClientConnInterface, error) { return l, nil }

func (l slowLeader) Invoke(_ context.Context, _ string, request, answer any, _ ...grpc.CallOption) error {
	l.wait()
	answer.(*ententev1.HeartbeatResponse).Term = request.(*ententev1.HeartbeatRequest).GetTerm()
	return nil
}

func newHeartbeats(t *testing.T, store *raftstore.Store, self string, now func() time.Time, conns Conns) *heartbeats {
	t.Helper()
	metrics, err := newMetrics(nil)
	require.NoError(t, err)
	log := hclog.NewNullLogger()
	sections := &sections{log: log, byName: map[string]Section{}}
	return &heartbeats{
		store: store, conns: conns, self: memberid.Self{ID: self}, every: time.Second, now: now, log: log,
		metrics: metrics, clock: &clockJudge{log: log, metrics: metrics}, sections: sections,
		leader:   &leader{store: store, self: self, log: log, sections: sections},
		diverged: &divergence{store: store, self: self, log: log, metrics: metrics}, disk: store.Disk().Err,
	}
}

// sentBeats is a leader that answers heartbeats, and delivers what they report of the disk.
type sentBeats struct {
	grpc.ClientConnInterface
	cannotWrite chan bool
}

func (s sentBeats) Conn(string) (grpc.ClientConnInterface, error) { return s, nil }

func (s sentBeats) Invoke(_ context.Context, _ string, request, answer any, _ ...grpc.CallOption) error {
	r := request.(*ententev1.HeartbeatRequest)
	answer.(*ententev1.HeartbeatResponse).Term = r.GetTerm()
	s.cannotWrite <- r.GetCannotWrite()
	return nil
}

// The leader learns at once that the disk of a member accepts no writes, and that it does again.
func TestFaultOfDiskIsReportedAtOnce(t *testing.T) {
	sent := sentBeats{cannotWrite: make(chan bool, 1)}
	h := newHeartbeats(t, raftstoretest.New(t), "another", time.Now, sent)
	h.every = time.Hour
	var full atomic.Bool
	h.disk = func() error {
		if full.Load() {
			return errors.New("the disk is full")
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() { h.run(ctx) })
	defer ended.Wait()
	defer cancel()
	require.False(t, <-sent.cannotWrite, "the first heartbeat")
	full.Store(true)
	require.True(t, <-sent.cannotWrite)
	full.Store(false)
	require.False(t, <-sent.cannotWrite)
}

// A member that was paused after the leader had answered it has not heard of the leader since it sent.
func TestContactCountsFromWhenItWasSent(t *testing.T) {
	now := time.Now()
	h := newHeartbeats(t, raftstoretest.New(t), "member-2", func() time.Time { return now },
		slowLeader{wait: func() { now = now.Add(time.Hour) }})
	sent := now
	require.True(t, h.beat(t.Context(), target{leader: "member-1", term: 7}, true, 1))
	require.Equal(t, sent, h.lastContact())
	require.Equal(t, time.Hour, now.Sub(h.lastContact()), "the hour counts towards signing_grace")
}

// A leader that was paused still takes itself for the leader when it resumes. Without a majority that confirms it, that
// is no contact by which it could sign.
func TestUnprovedLeadIsNoContact(t *testing.T) {
	store, err := raftstore.Open(raftstore.Config{
		MemberID: "member-1",
		// Until the lease ends the member goes on leading.
		Timing: raftstore.Timing{Heartbeat: time.Second, Election: time.Second, Lease: time.Second},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	require.NoError(t, store.Bootstrap())
	raftstoretest.AwaitLeadership(t, store)
	h := newHeartbeats(t, store, "member-1", time.Now, nil)
	self := target{leader: "member-1", term: store.Term()}
	h.leader.setTerm(self.term)
	before := time.Now()
	require.True(t, h.beat(t.Context(), self, true, 1), "it is a majority by itself")
	contact := h.lastContact()
	require.False(t, contact.Before(before))

	ended, cancel := context.WithCancel(t.Context())
	cancel() // the change needs the new member, which does not exist
	require.ErrorIs(t, store.Servers().AddVoter(ended, raftstore.Server{MemberID: "member-2", Address: "member-2"}),
		raftstore.ErrUnknownOutcome)
	require.Eventually(t, func() bool { return len(store.Servers().List()) == 2 }, time.Minute, time.Millisecond)
	require.False(t, h.beat(t.Context(), self, true, 1))
	require.Equal(t, contact, h.lastContact())
}

// TestLag: a member is behind by the time since the leader had applied what the member has not, however long that
// lasts, and no longer than that.
func TestLag(t *testing.T) {
	var l lag
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	behind := func(applied raftstore.Revision, seconds int) time.Duration {
		late, _ := l.of(applied, at(seconds))
		return late
	}
	require.Zero(t, behind(0, 0), "nothing is known")
	l.observe(10, 0, at(0))
	require.Equal(t, time.Second, behind(9, 1))
	require.Zero(t, behind(10, 2), "it has caught up")
	// The leader goes on by ten revisions a second, and the member is five seconds behind all the time.
	for second := range 300 {
		l.observe(raftstore.Revision(20+10*second), 0, at(second))
		if second >= 10 {
			require.Equal(t, 4*time.Second, behind(raftstore.Revision(20+10*(second-5)), second), second)
		}
	}
	l.observe(3010, 0, at(301))
	require.Zero(t, behind(3010, 302))
	// A member that applies nothing for an hour remembers since when.
	for second := range 3600 {
		l.observe(raftstore.Revision(4000+second), 0, at(400+second))
	}
	late, leader := l.of(3999, at(4000))
	require.Equal(t, time.Hour, late)
	require.Equal(t, raftstore.Revision(4000+maxMarks-1), leader)
	require.Len(t, l.marks, maxMarks)
	require.Zero(t, behind(9999, 4001))
	// What was applied is forgotten although nobody requests the lag.
	for second := range 3600 {
		l.observe(raftstore.Revision(10_000+second), raftstore.Revision(10_000+second-1), at(5000+second))
	}
	require.Len(t, l.marks, 1)
}

// aheadLeader answers heartbeats as one that has applied a revision.
type aheadLeader struct {
	grpc.ClientConnInterface
	applied uint64
}

func (a aheadLeader) Conn(string) (grpc.ClientConnInterface, error) { return a, nil }

func (a aheadLeader) Invoke(_ context.Context, _ string, request, answer any, _ ...grpc.CallOption) error {
	r := answer.(*ententev1.HeartbeatResponse)
	r.Term, r.AppliedRevision = request.(*ententev1.HeartbeatRequest).GetTerm(), a.applied
	return nil
}

// A member that does not reach what the leader had applied reports that, and no other does.
func TestMemberBehindItsLeader(t *testing.T) {
	store := raftstoretest.New(t)
	for applied, behind := range map[uint64]bool{uint64(store.View().Revision()): false, 1 << 40: true} {
		h := newHeartbeats(t, store, "another", time.Now, aheadLeader{applied: applied})
		to, ok := h.target()
		require.True(t, ok)
		require.NoError(t, h.send(t.Context(), to, false, 1))
		require.NoError(t, h.behind(), "it has two seconds")
		for i := range h.lag.marks {
			h.lag.marks[i].at = time.Now().Add(-time.Minute)
		}
		if err := h.behind(); behind {
			require.ErrorContains(t, err, "behind the leader, which is at 1099511627776 or later")
		} else {
			require.NoError(t, err)
		}
	}
}
