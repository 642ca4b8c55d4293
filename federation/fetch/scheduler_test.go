package fetch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/clocktest"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// timetable runs a scheduler under fake time, with fetches that the test plays.
type timetable struct {
	t         *testing.T
	mirror    *mirror.Mirror
	scheduler *Scheduler
	mu        sync.Mutex
	fetched   map[string][]time.Time
	counting  bool // fetches since then belong to the next pass: a change takes effect before the pass begins
	stop      func()
}

func newTimetable(t *testing.T, fetch func(ctx context.Context, name string) error) *timetable {
	in, err := intake.New(
		intake.Config{Log: hclog.NewNullLogger(), Now: time.Now, MinRefresh: relationship.DefaultMinRefresh},
	)
	require.NoError(t, err)
	tt := &timetable{t: t, mirror: mirror.New(), fetched: make(map[string][]time.Time)}
	p, err := New(Config{
		Intake: in, Mirror: tt.mirror, Observations: observation.New(time.Now), Routes: NewRoutes(), Maps: noMaps{},
		Log: hclog.NewNullLogger(), Now: time.Now,
	})
	require.NoError(t, err)
	tt.scheduler = NewScheduler(p, "eu-1", noStreams{})
	tt.scheduler.Fetch = func(ctx context.Context, name string, most time.Duration) intake.Outcome {
		tt.mu.Lock()
		tt.fetched[name] = append(tt.fetched[name], time.Now())
		tt.mu.Unlock()
		w := &Wait{bound: most}
		if err := w.On(ctx, func(ctx context.Context) error { return fetch(ctx, name) }); err != nil {
			result := "network"
			if errors.Is(err, relationship.ErrRollback) {
				result = relationship.ReasonOf(err)
			}
			return intake.Outcome{Result: result, Err: err, Waited: w.spent}
		}
		return intake.Outcome{Result: relationship.ResultUnchanged, Waited: w.spent}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tt.scheduler.Run(ctx) }()
	tt.stop = func() {
		cancel()
		require.NoError(t, <-ended)
	}
	return tt
}

// noMaps is for relationships that are no hubs, noStreams for those without a stream.
type (
	noMaps    struct{}
	noStreams struct{}
)

func (noMaps) Refresh(context.Context, string, *Wait) error { return nil }
func (noMaps) Forget(string)                                {}
func (noStreams) Covers(string, string) bool                { return false }
func (noStreams) TakeEnded(string) bool                     { return false }

// hold makes relationships with a refresh hint known.
func (tt *timetable) hold(hint time.Duration, generation uint64, names ...string) {
	tt.t.Helper()
	batch := raftstore.Batch{Revision: raftstore.Revision(generation)}
	put := func(table, key string, row proto.Message) {
		value, err := proto.Marshal(row)
		require.NoError(tt.t, err)
		batch.Changes = append(batch.Changes, raftstore.Change{Table: table, Key: key, Value: value})
	}
	for _, name := range names {
		b, err := bundle.New(
			spiffeid.RequireTrustDomainFromString(name), bundle.Content{Sequence: &generation, RefreshHint: &hint})
		require.NoError(tt.t, err)
		put(relationship.ForeignBundles.Name(), name, b.Row(time.Now()))
		put(relationship.Relationships.Name(), name, &statev1.Relationship{
			TrustDomain: name,
			Url:         "https://" + name,
			Profile:     federationtest.WebProfile,
			Generation:  generation,
		})
	}
	tt.apply(batch)
	tt.count()
	tt.scheduler.Changed(names...)
}

// apply applies changes of the store to the mirror.
func (tt *timetable) apply(batch raftstore.Batch) {
	tt.mirror.Apply(batch, func(err error) { tt.t.Error(err) })
}

// count resets the count of fetches for the next pass, unless it is reset already.
func (tt *timetable) count() {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	if !tt.counting {
		clear(tt.fetched)
	}
	tt.counting = true
}

// pass lets time go by, and returns how often each relationship was fetched meanwhile.
func (tt *timetable) pass(d time.Duration) map[string]int {
	tt.count()
	<-time.After(d)
	synctest.Wait()
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.counting = false
	counts := make(map[string]int)
	for name, times := range tt.fetched {
		counts[name] = len(times)
	}
	return counts
}

func TestTurnsFollowTheHint(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		tt := newTimetable(t, func(context.Context, string) error { return nil })
		defer tt.stop()
		tt.scheduler.SetMembers([]string{"eu-1"})
		tt.hold(time.Minute, 1, "us.example.org")
		require.Equal(t, 1, tt.pass(time.Second)["us.example.org"], "a new one at once")
		tt.pass(time.Hour)
		var gaps []time.Duration
		for i, at := range tt.fetched["us.example.org"][1:] {
			gaps = append(gaps, at.Sub(tt.fetched["us.example.org"][i]))
		}
		require.Greater(t, len(gaps), 50)
		different := map[time.Duration]bool{}
		for _, gap := range gaps {
			require.GreaterOrEqual(t, gap, 54*time.Second)
			require.LessOrEqual(t, gap, 66*time.Second)
			different[gap] = true
		}
		require.Greater(t, len(different), 10, "turns are spread")

		tt.hold(10*time.Second, 1, "us.example.org")
		require.GreaterOrEqual(t, tt.pass(time.Minute)["us.example.org"], 4, "a shorter hint counts from now on")
		tt.hold(time.Hour, 2, "us.example.org")
		require.Equal(t, 1, tt.pass(time.Second)["us.example.org"], "an operator's decision at once")
	})
}

// A document that is refused is fetched again at the next turn: it is refused again.
func TestRefusalWaitsForTheNextTurn(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		tt := newTimetable(t, func(context.Context, string) error { return relationship.ErrRollback })
		defer tt.stop()
		tt.scheduler.SetMembers([]string{"eu-1"})
		tt.hold(time.Minute, 1, "us.example.org")
		count := tt.pass(time.Hour)["us.example.org"]
		require.GreaterOrEqual(t, count, 55)
		require.LessOrEqual(t, count, 67)
	})
}

// After an outage a peer is fetched sooner than at its turn, at first often and then at its turns.
func TestRetriesAfterAnOutage(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		out := false
		tt := newTimetable(t, func(context.Context, string) error {
			if out {
				return errors.New("connection refused")
			}
			return nil
		})
		defer tt.stop()
		tt.scheduler.SetMembers([]string{"eu-1"})
		tt.hold(5*time.Minute, 1, "us.example.org")
		tt.pass(time.Hour)
		out = true
		tt.pass(time.Hour)
		var gaps []time.Duration
		for i, at := range tt.fetched["us.example.org"][1:] {
			gaps = append(gaps, at.Sub(tt.fetched["us.example.org"][i]))
		}
		for i, least := range []time.Duration{5, 10, 20, 40, 80, 270, 270, 270} {
			require.GreaterOrEqual(t, gaps[i], least*time.Second, "gap %d of %v", i, gaps)
			require.LessOrEqual(t, gaps[i], min(2*least, 330)*time.Second, "gap %d of %v", i, gaps)
		}

		// One success ends the series: the next outage begins anew.
		out = false
		tt.pass(10 * time.Minute)
		out = true
		require.GreaterOrEqual(t, tt.pass(8 * time.Minute)["us.example.org"], 3)
	})
}

func TestHostPacer(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	p := hostPacer{free: make(map[string]time.Time)}
	require.Equal(t, at(5), p.after(at(0), "a", at(5), at(60)), "the first at its time")
	require.Equal(t, at(6), p.after(at(0), "a", at(5), at(60)), "the second a second later")
	require.Equal(t, at(7), p.after(at(0), "a", at(6), at(60)))
	require.Equal(t, at(5), p.after(at(0), "b", at(5), at(60)), "another host has times of its own")
	require.Equal(t, at(8), p.after(at(0), "a", at(5), at(8)), "no retry is later than the turn")
	require.Equal(t, at(8), p.after(at(0), "a", at(5), at(60)), "and a turn takes no place")
	for n := range 10_000 {
		p.after(at(n), fmt.Sprint("host ", n), at(n+5), at(n+60))
	}
	require.Less(t, len(p.free), 100, "times that have passed are forgotten")
}

// TestHangingPeers: hundreds of peers that hang for half a minute each do not keep the others waiting.
func TestHangingPeers(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		tt := newTimetable(t, func(ctx context.Context, name string) error {
			if name > "d00500" {
				return nil
			}
			select {
			case <-time.After(30 * time.Second):
			case <-ctx.Done():
			}
			return errors.New("timeout")
		})
		defer tt.stop()
		tt.scheduler.SetMembers([]string{"eu-1"})
		tt.hold(10*time.Second, 1, federationtest.Names(600, "example.org")...)
		tt.pass(5 * time.Minute) // every one has had its first turn
		queues := tt.scheduler.poller.metrics.queues
		require.EqualValues(
			t,
			slowPlaces,
			testutil.ToFloat64(queues.WithLabelValues("slow", "running")),
			"an operator sees that they hang",
		)
		require.Positive(t, testutil.ToFloat64(queues.WithLabelValues("slow", "waiting")))
		require.Zero(t, testutil.ToFloat64(queues.WithLabelValues("fast", "waiting")), "and that nobody else waits")
		counts := tt.pass(10 * time.Minute)
		for _, name := range federationtest.Names(600, "example.org")[501:] {
			require.GreaterOrEqual(t, counts[name], 54, name)
		}
		for _, name := range federationtest.Names(600, "example.org")[:500] {
			require.Positive(t, counts[name], name)
		}
	})
}

// TestPeersThatAlternate: hundreds of peers that answer at once when they are being waited for among their like, and
// hang where the others are waited for, win little time.
func TestPeersThatAlternate(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := make(map[string]int)
		tt := newTimetable(t, func(ctx context.Context, name string) error {
			if name > "d00500" {
				return nil
			}
			mu.Lock()
			asked[name]++
			hang := asked[name]%2 == 1
			mu.Unlock()
			if hang {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		defer tt.stop()
		tt.scheduler.SetMembers([]string{"eu-1"})
		tt.hold(10*time.Second, 1, federationtest.Names(600, "example.org")...)
		tt.pass(time.Minute)
		counts := tt.pass(10 * time.Minute)
		for _, name := range federationtest.Names(600, "example.org")[501:] {
			require.GreaterOrEqual(t, counts[name], 54, name)
		}
	})
}

func TestPenalty(t *testing.T) {
	for _, test := range []struct {
		name, attempts string // p: prompt, l: long
		level, owed    int
	}{
		{"new", "", 0, 0},
		{"always prompt", "pppp", 0, 0},
		{"out for long", "llllllll", 1, 1},
		{"out for long, and back", "llllllllp", 1, 0},
		{"and good since", "llllllllpp", 0, 0},
		{"long again", "lpl", 3, 3},
		{"long again and again", "lplpppl", 7, 7},
		{"long at every chance", "lplppplpppppppl", 15, 15},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p penalty
			for _, a := range test.attempts {
				p = p.after(a == 'p')
			}
			require.Equal(t, penalty{test.level, test.owed}, p)
		})
	}
	require.False(t, prompt(intake.Outcome{Result: "timeout"}), "after a short limit")
	require.False(
		t,
		prompt(intake.Outcome{Result: relationship.ResultStored, Waited: promptWithin}),
		"at the last moment",
	)
	require.False(t, prompt(intake.Outcome{Result: "unfinished", Err: relationship.ErrUnfinished}))
	require.True(t, prompt(intake.Outcome{Result: "network"}), "it took nobody's place")
}

// TestTakeoverIsSpread: a member that starts with ten thousand relationships, or takes them over, begins with each of
// them soon and with not too many at once.
func TestTakeoverIsSpread(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		tt := newTimetable(t, func(context.Context, string) error { return nil })
		defer tt.stop()
		tt.hold(5*time.Minute, 1, federationtest.Names(10_000, "example.org")...)
		require.Empty(t, tt.pass(time.Second), "nobody is alive")
		tt.scheduler.SetMembers([]string{"eu-1"})
		for range 100 {
			require.InDelta(
				t,
				115,
				len(tt.pass(time.Second)),
				75,
				"a hundred, and in the end a third of them that are fetched again",
			)
		}
		require.Len(t, tt.scheduler.owned, 10_000)

		// What began within a hundred seconds does not go on as a wave of a hundred seconds.
		tt.pass(10 * time.Minute)
		for range 30 {
			require.InDelta(t, 333, len(tt.pass(10*time.Second)), 120)
		}
	})
}

func TestOwnershipMoves(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		cancelled := make(chan string, 100)
		hang := false
		tt := newTimetable(t, func(ctx context.Context, name string) error {
			if !hang {
				return nil
			}
			<-ctx.Done()
			if errors.Is(ctx.Err(), context.Canceled) { // and not only out of its time in the fast queue
				cancelled <- name
			}
			return ctx.Err()
		})
		defer tt.stop()
		all := federationtest.Names(30, "example.org")
		tt.scheduler.SetMembers([]string{"eu-1"})
		tt.hold(time.Minute, 1, all...)
		require.Len(t, tt.pass(2*time.Minute), 30)

		// Two members join: some of the work goes to them, and what was under way for it is given up.
		hang = true
		tt.pass(2 * time.Minute)
		members := []string{"eu-1", "eu-2", "eu-3"}
		tt.scheduler.SetMembers(members)
		tt.pass(time.Millisecond)
		moved := 0
		for _, name := range all {
			if membership.Owner(name, members) != "eu-1" {
				moved++
			}
		}
		require.Len(t, cancelled, moved)
		require.Len(t, tt.scheduler.owned, 30-moved)
		hang = false

		// They die: it comes back, and is fetched at once.
		tt.scheduler.SetMembers([]string{"eu-1"})
		require.Len(t, tt.pass(time.Second), moved)

		// A relationship that ended is dropped.
		tt.apply(raftstore.Batch{Revision: 2, Changes: []raftstore.Change{
			{Table: relationship.Relationships.Name(), Key: all[0]},
			{Table: relationship.ForeignBundles.Name(), Key: all[0]},
		}})
		tt.scheduler.Changed(all[0])
		require.NotContains(t, tt.pass(10*time.Minute), all[0])
	})
}
