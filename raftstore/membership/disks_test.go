package membership

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

func TestHandover(t *testing.T) {
	const ms = time.Millisecond
	disk := func(id string, median time.Duration) voterDisk {
		return voterDisk{id: id, median: median, reachable: true, caughtUp: true}
	}
	fast := []voterDisk{disk("m2", 5*ms), disk("m3", 4*ms)}
	mixed := []voterDisk{disk("m2", 300*ms), disk("m3", 2*ms)}
	behind := []voterDisk{disk("m2", 5*ms), {id: "m3", median: 4 * ms, reachable: true}}
	gone := []voterDisk{disk("m2", 5*ms), {id: "m3", median: 4 * ms, caughtUp: true}}
	unable := []voterDisk{{id: "m2", median: 5 * ms, reachable: true, unable: true, caughtUp: true}}
	for name, test := range map[string]struct {
		own    ownDisk
		voters []voterDisk
		want   string // after ten seconds
	}{
		"a slow leader":                   {ownDisk{median: 251 * ms}, fast, "m3"},
		"not slow enough":                 {ownDisk{median: 250 * ms}, fast, ""},
		"the voters are slow too":         {ownDisk{median: 3000 * ms}, mixed, ""},
		"above ten times their median":    {ownDisk{median: 3001 * ms}, mixed, "m3"},
		"the fastest is behind":           {ownDisk{median: 300 * ms}, behind, "m2"},
		"the fastest is not reachable":    {ownDisk{median: 300 * ms}, gone, "m2"},
		"none has caught up":              {ownDisk{median: 300 * ms}, behind[1:], ""},
		"nothing is known of the others":  {ownDisk{median: 300 * ms}, []voterDisk{disk("m2", 0)}, ""},
		"alone":                           {ownDisk{median: 300 * ms}, nil, ""},
		"full, and alone":                 {ownDisk{unable: true}, nil, ""},
		"full, and no other accepts more": {ownDisk{unable: true}, unable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var h handover
			now := time.Unix(1000, 0)
			for range 10 {
				require.Empty(t, h.decide(now, test.own, test.voters))
				now = now.Add(time.Second)
			}
			require.Equal(t, test.want, h.decide(now, test.own, test.voters))
		})
	}

	t.Run("a full disk is handed over at once", func(t *testing.T) {
		var h handover
		require.Equal(t, "m3", h.decide(time.Unix(1000, 0), ownDisk{unable: true}, fast))
	})
	t.Run("at most once in ten minutes", func(t *testing.T) {
		var h handover
		now := time.Unix(1000, 0)
		var handed []time.Duration
		for at := time.Duration(0); at < 25*time.Minute; at += time.Second {
			if h.decide(now.Add(at), ownDisk{median: time.Second}, fast) != "" {
				handed = append(handed, at)
			}
		}
		require.Equal(t, []time.Duration{
			10 * time.Second, 10*time.Minute + 10*time.Second, 20*time.Minute + 10*time.Second,
		}, handed)
	})
	t.Run("a pause begins the ten seconds again", func(t *testing.T) {
		var h handover
		now := time.Unix(1000, 0)
		slow, fine := ownDisk{median: time.Second}, ownDisk{median: ms}
		require.Empty(t, h.decide(now, slow, fast))
		require.Empty(t, h.decide(now.Add(9*time.Second), fine, fast))
		require.Empty(t, h.decide(now.Add(10*time.Second), slow, fast))
		require.Empty(t, h.decide(now.Add(19*time.Second), slow, fast))
		require.Equal(t, "m3", h.decide(now.Add(20*time.Second), slow, fast))
	})
}

func TestObstacle(t *testing.T) {
	fine := func(id string) voterDisk { return voterDisk{id: id, reachable: true} }
	full := func(id string) voterDisk { return voterDisk{id: id, reachable: true, unable: true} }
	gone := func(id string) voterDisk { return voterDisk{id: id} }
	for name, test := range map[string]struct {
		own    error
		voters []voterDisk
		want   string
	}{
		"all can write":                {nil, []voterDisk{fine("m2"), fine("m3")}, ""},
		"alone":                        {nil, nil, ""},
		"one of three cannot":          {nil, []voterDisk{full("m2"), fine("m3")}, ""},
		"one of three is gone":         {nil, []voterDisk{gone("m2"), fine("m3")}, ""},
		"two of five cannot":           {nil, []voterDisk{full("m2"), full("m3"), fine("m4"), fine("m5")}, ""},
		"two are gone, disks are fine": {nil, []voterDisk{gone("m2"), gone("m3")}, ""},
		"the leader cannot": {
			errors.New("the disk of the data folder is full"), []voterDisk{fine("m2"), fine("m3")},
			"the leader m1 cannot write: the disk of the data folder is full",
		},
		"two of three cannot": {
			nil, []voterDisk{full("m2"), full("m3")},
			"no majority of the members can write: the disk of m2 accepts no writes, the disk of m3 accepts no writes",
		},
		"one of two cannot": {
			nil, []voterDisk{full("m2")}, "no majority of the members can write: the disk of m2 accepts no writes",
		},
		"one cannot, and one is gone": {
			nil, []voterDisk{gone("m2"), full("m3")},
			"no majority of the members can write: the disk of m3 accepts no writes, m2 is not reachable",
		},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, obstacle("m1", test.own, test.voters)) })
	}
}

func TestLeaderHealth(t *testing.T) {
	of, at := target{leader: "m1", term: 3}, time.Unix(1000, 0)
	var h leaderHealth
	require.Empty(t, h.get(of), "nothing was reported")
	h.set(of, at, "full")
	require.Equal(t, "full", h.get(of))
	h.set(of, at.Add(-time.Millisecond), "")
	require.Equal(t, "full", h.get(of), "an answer to what was sent before the report")
	h.set(of, at.Add(time.Second), "")
	require.Empty(t, h.get(of))
	h.set(of, at.Add(2*time.Second), strings.Repeat("x", 10_000))
	require.Len(t, h.get(of), maxObstacle)
	h.set(of, at.Add(3*time.Second), "full")
	for _, next := range []target{{leader: "m1", term: 4}, {leader: "m2", term: 5}} {
		require.Equal(t, "the new leader "+next.leader+" has not reported yet whether it can commit; the one before "+
			"could not: full", h.get(next))
	}
	h.set(of, at.Add(4*time.Second), "")
	require.Empty(t, h.get(target{leader: "m1", term: 4}))
	h.set(target{leader: "m2", term: 5}, at, "hangs")
	require.Equal(t, "hangs", h.get(target{leader: "m2", term: 5}), "the clocks of two leaders are not compared")
}

// announcements receives what a leader reports of its health, by member.
type announcements struct {
	grpc.ClientConnInterface
	member string
	to     chan<- string
}

func (a announcements) Invoke(_ context.Context, _ string, request, _ any, _ ...grpc.CallOption) error {
	r := request.(*ententev1.AnnounceHealthRequest)
	a.to <- a.member + ": " + r.GetCannotCommit()
	return nil
}

// announcedTo gives connections that receive announcements.
type announcedTo chan string

func (a announcedTo) Conn(id string) (grpc.ClientConnInterface, error) {
	return announcements{member: id, to: a}, nil
}

// A leader reports that its disk begins and ceases to fail, once, without a heartbeat of the others.
func TestLeaderAnnouncesItsHealth(t *testing.T) {
	to := make(announcedTo, 10)
	var mu sync.Mutex
	var fault error
	set := func(err error) { mu.Lock(); defer mu.Unlock(); fault = err }
	l := &leader{
		store: raftstoretest.New(t), self: "another", conns: to, log: hclog.NewNullLogger(), aliveTimeout: time.Hour,
		beats: newHeartbeatSection(nil, nil), disk: func() error { mu.Lock(); defer mu.Unlock(); return fault },
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() { l.announceHealth(ctx, 7) })
	defer ended.Wait()
	defer cancel()
	member := l.store.MemberID()
	set(errors.New("the disk hangs"))
	require.Equal(t, member+": the leader another cannot write: the disk hangs", <-to)
	set(errors.New("the disk hangs for longer")) // which is no change
	set(nil)
	require.Equal(t, member+": ", <-to)
	set(errors.New("the disk is full"))
	require.Equal(t, member+": the leader another cannot write: the disk is full", <-to)
	require.Empty(t, to)
}

// What a member reports of the leader's health counts if it leads, and ends with the next answer to a heartbeat.
func TestAnnouncedHealth(t *testing.T) {
	store := raftstoretest.New(t)
	term := store.Term()
	h := newHeartbeats(t, store, "another", time.Now, slowLeader{wait: func() {}})
	caller := store.MemberID()
	s := memberService{
		caller: func(context.Context) (string, bool) { return caller, caller != "" }, now: time.Now, beats: h,
	}
	announce := func(term uint64, obstacle string) error {
		_, err := s.AnnounceHealth(t.Context(), &ententev1.AnnounceHealthRequest{Term: term, CannotCommit: obstacle})
		return err
	}
	require.NoError(t, announce(term, "the disk hangs"))
	require.Equal(t, "the disk hangs", h.obstacle())
	require.NoError(t, announce(term, ""))
	require.Empty(t, h.obstacle())

	require.NoError(t, announce(term, "the disk hangs"))
	require.True(t, h.beat(t.Context(), target{leader: caller, term: term}, true, 1))
	require.Empty(t, h.obstacle(), "the answer has no fault")

	// A new leader that has reported nothing yet is taken to be as the one before.
	require.NoError(t, announce(term, "the disk hangs"))
	next := target{leader: "another", term: term + 1}
	require.Equal(t, "the new leader another has not reported yet whether it can commit; the one before could not: "+
		"the disk hangs", h.health.get(next))
	h.health.set(next, time.Now(), "")
	require.Empty(t, h.health.get(next))
	require.NoError(t, announce(term, ""))

	err := announce(term-1, "the disk hangs")
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, "does not lead in term")
	leads := caller
	caller = "member-9"
	require.ErrorContains(t, announce(term, "the disk hangs"), "member member-9 does not lead in term")
	caller = ""
	require.ErrorContains(t, announce(term, "the disk hangs"), "only members of the cluster call this")
	require.Empty(t, h.obstacle())

	// The leader itself knows it at once.
	h = newHeartbeats(t, store, leads, time.Now, nil)
	h.self = memberid.Self{ID: leads}
	h.leader.beats = newHeartbeatSection(nil, nil)
	h.leader.disk = func() error { return errors.New("the disk is full") }
	require.Equal(t, "the leader "+leads+" cannot write: the disk is full", h.obstacle())
}
