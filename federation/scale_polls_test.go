package federation

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/clocktest"
	"github.com/ententehq/entente/trust/standing"
)

// moments are the times of an event.
type moments struct {
	mu sync.Mutex
	at []time.Time
}

func (m *moments) now() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = append(m.at, time.Now())
}

func (m *moments) all() []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.at)
}

// pace is how evenly events are spread over a span of time: their number, and the mean and the maximum per window.
type pace struct {
	count int
	mean  float64
	peak  int
}

// paceOf counts events in windows of a length.
func paceOf(at []time.Time, from, to time.Time, window time.Duration) (p pace) {
	windows := make([]int, int(to.Sub(from)/window)+1)
	for _, t := range at {
		if !t.Before(from) && t.Before(to) {
			i := int(t.Sub(from) / window)
			windows[i]++
			p.count++
			p.peak = max(p.peak, windows[i])
		}
	}
	p.mean = float64(p.count) * float64(window) / float64(to.Sub(from))
	return p
}

// ratio returns the maximum divided by the mean.
func (p pace) ratio() float64 { return float64(p.peak) / p.mean }

// pollWindow is the length of the windows in which polls are counted.
const pollWindow = 10 * time.Second

// momentsOf returns the events of all members, with those that have ended.
func momentsOf(members []*simMember, of func(*simMember) *moments) (all []time.Time) {
	for _, m := range members {
		all = append(all, of(m).all()...)
	}
	return all
}

func polls(m *simMember) *moments { return &m.polls }
func dials(m *simMember) *moments { return &m.dials }

// kill ends the leader as if its process were killed. The other members notice missing heartbeats.
func (c *cluster) kill(t *testing.T) {
	t.Helper()
	i := c.raft.Leader()
	dead := c.members[i]
	c.mu.Lock()
	c.members = slices.Delete(slices.Clone(c.members), i, i+1)
	c.mu.Unlock()
	dead.stop()
	c.raft.Kill(i)
	<-time.After(10 * time.Second)
	federationtest.MarkAlive(t, c.members[0].store, c.alive()...)
}

// spread is the result of the polls of a cluster of three.
type spread struct {
	size int
	// start is the start, rest a time without events, handover a transfer of leadership, death
	// after the leader died, and later in the hour after that.
	start, rest, handover, death, later pace
	// shares are the polls of each member in the time of rest.
	shares []int
	// dialed is the pace of dialing streams after the leader died, in windows of a second.
	dialed pace
	// stale is how many bundles counted as stale after the handover.
	stale int
}

// spreadOf measures the polls over so many turns of rest.
func spreadOf(t *testing.T, size int, streams bool, hint time.Duration, turns int) (s spread) {
	clocktest.Run(t, func(t *testing.T) {
		w := newWorld(t, "entente")
		w.hint, s.size = hint, size
		began := time.Now()
		g := w.growAmong(3, mesh, size, streams)
		members := g.real.members
		for time.Since(began) < 2*hint {
			<-time.After(hint)
		}
		s.start = paceOf(momentsOf(members, polls), began, time.Now(), pollWindow)
		wait := func(turns int) time.Time {
			from := time.Now()
			<-time.After(time.Duration(turns) * hint)
			return from
		}
		from := wait(turns)
		s.rest = paceOf(momentsOf(members, polls), from, time.Now(), pollWindow)
		for _, m := range members {
			s.shares = append(s.shares, paceOf(m.polls.all(), from, time.Now(), pollWindow).count)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, members[g.real.raft.Leader()].store.Servers().TransferLeadership(ctx, ""))
		from = time.Now()
		for range 2 * hint / time.Second {
			<-time.After(time.Second)
			s.stale = max(s.stale, g.real.stale())
		}
		s.handover = paceOf(momentsOf(members, polls), from, time.Now(), pollWindow)

		from = time.Now()
		g.real.kill(t)
		wait(1)
		s.death = paceOf(momentsOf(members, polls), from, time.Now(), pollWindow)
		s.dialed = paceOf(momentsOf(members, dials), from, time.Now(), time.Second)
		from = wait(turns)
		s.later = paceOf(momentsOf(members, polls), from, time.Now(), pollWindow)
	})
	return s
}

// stale returns the number of stale bundles.
func (c *cluster) stale() (n int) {
	for row, err := range relationship.Relationships.All(c.first().store.View(), "") {
		require.NoError(c.w.t, err)
		if relationship.TrustOf(row.Value).State != standing.Fresh {
			n++
		}
	}
	return n
}
