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
