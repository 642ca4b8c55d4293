package federation

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// fastLane bounds the fetches under way of peers that answer promptly, slowLane those of the others: any number of peers that hang
	// for as long as a fetch may take cannot keep the healthy ones waiting. Nobody keeps a place in the fast lane for longer than
	// [promptly]. A fetch without a kept connection costs a handshake's worth of memory, some 100 KiB, and what it brings.
	fastLane = 96
	slowLane = 32
)

// scheduler gives each relationship that this member owns its turns. One goroutine runs it and owns all of its fields; fetches run
// on goroutines of their own and come back through finished.
type scheduler struct {
	manager *Manager
	// fetch is [Manager.refreshWithin], on a goroutine of its own each time.
	fetch   func(ctx context.Context, name string, most time.Duration) intake.Outcome
	members []string
	queue   *relationship.Queue
	owned   map[string]*ownership
	fast    lane
	slow    lane
	// ended paces the fetches of what was kept up to date by streams that broke.
	ended    relationship.Pacer
	finished chan finish
	fetches  sync.WaitGroup
}

// ownership is one relationship that this member fetches.
type ownership struct {
	generation uint64
	interval   time.Duration
	// cancel ends the fetch that is under way; nil when none is, or when it waits in its lane.
	cancel context.CancelFunc
	// again says that the fetch under way is of an outdated generation, to be followed by another one at once.
	again bool
	// waiting says that the turn has come, and the lane is full.
	waiting bool
	// streamed says that a peer kept the bundle up to date over a stream when that was last looked at, and fetched when it was last
	// fetched nevertheless.
	streamed bool
	fetched  time.Time
	// conduct says which lane the next attempt takes.
	conduct conduct
	// together says that it was taken over with others, and has not been fetched since.
	together bool
}

// lane bounds how many fetches of a kind are under way.
type lane struct {
	limit, running int
	// patience is for how long a fetch may wait for its peer; 0: as long as its relationship allows.
	patience time.Duration
	waiting  []string // those with fewer strikes first, of the same in their order
}

type finish struct {
	name    string
	own     *ownership
	lane    *lane
	started time.Time
	outcome intake.Outcome
}

func newScheduler(m *Manager) *scheduler {
	return &scheduler{
		manager: m, fetch: m.refreshWithin, queue: relationship.NewQueue(), owned: make(map[string]*ownership),
		fast: lane{limit: fastLane, patience: promptly}, slow: lane{limit: slowLane},
		finished: make(chan finish, fastLane+slowLane),
	}
}

// run gives turns until ctx ends, and returns when the last fetch has ended.
func (s *scheduler) run(ctx context.Context) error {
	defer s.fetches.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.manager.changes.signal:
			names, members, all := s.manager.changes.take()
			s.changed(names, members, all)
		case done := <-s.finished:
			s.done(ctx, done)
		case <-timer.C:
		}
		for name, ok := s.queue.Due(s.manager.now()); ok; name, ok = s.queue.Due(s.manager.now()) {
			s.start(ctx, name)
		}
		if at, ok := s.queue.Next(); ok {
			timer.Reset(at.Sub(s.manager.now()))
		} else {
			timer.Stop()
		}
		s.manager.metrics.owned.Set(float64(len(s.owned)))
		s.manager.metrics.lane("fast", s.fast)
		s.manager.metrics.lane("slow", s.slow)
	}
}

// changed looks again at who owns what. all says that the members changed, or that everything was read anew.
func (s *scheduler) changed(names []string, members []string, all bool) {
	s.members = members
	if all {
		seen := make(map[string]bool)
		names = s.manager.catalog.Names()
		for _, name := range names {
			seen[name] = true
		}
		for name := range s.owned {
			if !seen[name] {
				names = append(names, name)
			}
		}
	}
	var taken []string
	for _, name := range names {
		e, exists := s.manager.catalog.Get(name)
		mine := exists && e.Rel.InForce && s.manager.owner(name, s.members) == s.manager.member
		own, known := s.owned[name]
		switch {
		case !mine && known:
			s.drop(name, own)
		case mine && !known:
			taken = append(taken, name)
		case mine && own.generation != e.Rel.Generation:
			s.decided(name, own, e)
		case mine && s.streamEnded(own, e):
			s.plan(name, own, s.ended.After(s.manager.now()))
		case mine:
			s.shorten(name, own, s.manager.intake.Interval(e.Holding))
		}
	}
	for _, name := range taken {
		s.take(name, len(taken))
	}
}

// take begins with a relationship: a new one, or one of another member's.
func (s *scheduler) take(name string, together int) {
	e, ok := s.manager.catalog.Get(name)
	if !ok {
		return
	}
	own := &ownership{generation: e.Rel.Generation, interval: s.manager.intake.Interval(e.Holding), together: together > 1}
	s.owned[name] = own
	s.plan(name, own, s.manager.now().Add(relationship.Takeover(own.interval, together, s.manager.chance())))
}

// drop leaves a relationship: it ended, was suspended, or belongs to another member now.
func (s *scheduler) drop(name string, own *ownership) {
	if own.cancel != nil {
		own.cancel()
	}
	s.queue.Remove(name)
	delete(s.owned, name)
	s.manager.observations.Disowned(name)
	s.manager.observations.Disowned(name + relationship.MapSuffix)
	s.manager.mapReadings.forget(name)
	s.manager.etags.forget(name)
	s.manager.routes.forget(name)
}

// decided follows an operator's decision at once.
func (s *scheduler) decided(name string, own *ownership, e mirror.Entry) {
	own.generation, own.interval, own.conduct = e.Rel.Generation, s.manager.intake.Interval(e.Holding), conduct{}
	switch {
	case own.cancel != nil:
		own.again = true
		own.cancel()
	case !own.waiting:
		s.plan(name, own, s.manager.now())
	}
}

// shorten brings a turn forward when a new bundle asks to be fetched more often.
func (s *scheduler) shorten(name string, own *ownership, interval time.Duration) {
	if interval < own.interval && own.cancel == nil && !own.waiting {
		s.plan(name, own, s.manager.now().Add(relationship.Turn(interval, s.manager.chance())))
	}
	own.interval = interval
}

func (s *scheduler) plan(name string, own *ownership, at time.Time) {
	s.queue.Set(name, at)
	s.manager.observations.Planned(name, own.generation, at, own.interval)
}

// streamEnded reports whether a stream kept the bundle up to date until now, so that it is to be fetched at once.
func (s *scheduler) streamEnded(own *ownership, e mirror.Entry) bool {
	name := e.Rel.TrustDomain.Name()
	home := e.PeerHome()
	was := home != "" && s.manager.streams.TakeEnded(name) || own.streamed
	own.streamed = s.manager.covered(e)
	switch {
	case !was || own.streamed || own.waiting:
		return false
	case own.cancel != nil:
		own.again = true // what is on its way may have been asked for before the stream ended
		return false
	}
	return true
}

// covered reports whether streams keep up to date everything that is fetched for a relationship: the bundle, and the map of a hub.
func (m *Manager) covered(e mirror.Entry) bool {
	home, name := e.PeerHome(), e.Rel.TrustDomain.Name()
	return m.streams.Covers(home, name) && (e.Rel.Hub == nil || m.streams.Covers(home, name+relationship.MapSuffix))
}

// spared reports whether a turn can be passed over, because a peer keeps the bundle up to date over a stream.
func (s *scheduler) spared(name string, own *ownership) bool {
	e, ok := s.manager.catalog.Get(name)
	if !ok {
		return false
	}
	own.streamed = s.manager.covered(e)
	return own.streamed && s.manager.now().Sub(own.fetched) < relationship.SafetyPoll
}

// start begins a fetch, or lets it wait for its lane.
func (s *scheduler) start(ctx context.Context, name string) {
	own, ok := s.owned[name]
	if !ok {
		return
	}
	if s.spared(name, own) {
		s.plan(name, own, s.manager.now().Add(relationship.Turn(own.interval, s.manager.chance())))
		return
	}
	l := &s.fast
	if own.conduct.slow() {
		l = &s.slow
	}
	if l.running == l.limit {
		s.wait(l, name, own)
		return
	}
	l.running++
	own.waiting = false
	fetching, cancel := context.WithCancel(ctx)
	own.cancel, own.fetched = cancel, s.manager.now()
	s.fetches.Go(func() {
		defer cancel()
		started := s.manager.now()
		s.finished <- finish{name, own, l, started, s.fetch(fetching, name, l.patience)}
	})
}

// wait lets a fetch wait for its lane, behind those of no more strikes.
func (s *scheduler) wait(l *lane, name string, own *ownership) {
	own.waiting = true
	i := len(l.waiting)
	for ; i > 0; i-- {
		if other, ok := s.owned[l.waiting[i-1]]; ok && other.conduct.strikes <= own.conduct.strikes {
			break
		}
	}
	l.waiting = slices.Insert(l.waiting, i, name)
}

// done plans the next turn, and lets the next in the lane begin.
func (s *scheduler) done(ctx context.Context, f finish) {
	f.lane.running--
	if own := f.own; s.owned[f.name] == own {
		own.cancel = nil
		own.conduct = own.conduct.after(prompt(f.outcome))
		if e, ok := s.manager.catalog.Get(f.name); ok {
			own.interval = s.manager.intake.Interval(e.Holding)
		}
		next := f.started.Add(relationship.Turn(own.interval, s.manager.chance()))
		if own.together {
			next = f.started.Add(relationship.SpreadOut(own.interval, s.manager.chance()))
			own.fetched = own.fetched.Add(-relationship.SpreadOut(relationship.SafetyPoll, s.manager.chance()))
		}
		switch {
		case own.again:
			next = s.manager.now()
		case f.outcome.Local():
			next = f.started.Add(relationship.Turn(min(own.interval, relationship.StoreRetry), s.manager.chance()))
		}
		if unfinished := errors.Is(f.outcome.Err, relationship.ErrUnfinished); unfinished && !own.again {
			s.start(ctx, f.name)
		} else {
			s.plan(f.name, own, next)
			own.together = false
		}
		own.again = false
	}
	for len(f.lane.waiting) > 0 && f.lane.running < f.lane.limit {
		name := f.lane.waiting[0]
		f.lane.waiting = f.lane.waiting[1:]
		if own, ok := s.owned[name]; ok && own.waiting {
			s.start(ctx, name)
		}
	}
}
