package fetch

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/membership"
)

const (
	// fastPlaces bounds the running fetches of peers that answer promptly, slowPlaces those of the others. Peers that
	// hang for as long as a fetch may take cannot delay the healthy ones, however many they are: nothing occupies a
	// fast place for longer than promptWithin. A fetch without a kept connection costs a handshake's worth of memory,
	// some 100 KiB, and the document.
	fastPlaces = 96
	slowPlaces = 32
)

// Streams knows which bundles the streams to peers keep up to date. Its methods are called from the scheduler's
// goroutine and must not block.
type Streams interface {
	// Covers reports whether a stream with a peer keeps up to date a domain's bundle, or a hub's map under the name
	// with [relationship.MapSuffix]. An empty home is no peer.
	Covers(home, name string) bool
	// TakeEnded reports whether a stream kept a domain's bundle up to date and has ended since the last call.
	TakeEnded(name string) bool
}

// Scheduler gives each relationship that this member owns its turns. One goroutine, that of Run, owns all fields but
// changes and alive. Fetches run on goroutines of their own and report through finished.
type Scheduler struct {
	poller  *Poller
	member  string
	streams Streams
	// Fetch is [Poller.RefreshWithin], or plays it in simulations. It is called on a goroutine of its own each time.
	Fetch func(ctx context.Context, name string, bound time.Duration) intake.Outcome

	changes *feed.Set[string]
	alive   struct {
		sync.Mutex
		members []string
	}

	members []string
	turns   *relationship.Queue
	owned   map[string]*ownership
	fast    fetchQueue
	slow    fetchQueue
	// ended paces the fetches of bundles whose streams ended together.
	ended    relationship.Pacer
	retries  hostPacer
	finished chan finish
	fetches  sync.WaitGroup
}

// ownership is one relationship that this member fetches.
type ownership struct {
	generation uint64
	interval   time.Duration
	// cancel ends the running fetch. It is nil if none runs.
	cancel context.CancelFunc
	// again means that the running fetch is of an outdated generation, and another one follows at once.
	again bool
	// waiting means that the turn has come and no place is free.
	waiting bool
	// streamed means that a stream kept the bundle up to date at the last check. fetched is the time of the last fetch.
	streamed bool
	fetched  time.Time
	penalty  penalty
	// failures counts the consecutive attempts that an outage of the peer failed.
	failures int
	// together means that the relationship was taken over with others and not fetched since.
	together bool
}

// fetchQueue bounds how many fetches of a kind run.
type fetchQueue struct {
	places, running int
	// bound is how long a fetch may wait for its peer. 0 is as long as its relationship allows.
	bound   time.Duration
	waiting []string // by penalty, and in order of arrival
}

// finish is the end of a fetch.
type finish struct {
	name    string
	own     *ownership
	queue   *fetchQueue
	started time.Time
	outcome intake.Outcome
}

// NewScheduler returns a scheduler for a member. Nothing is fetched before [Scheduler.Run].
func NewScheduler(p *Poller, member string, streams Streams) *Scheduler {
	return &Scheduler{
		poller: p, member: member, streams: streams, Fetch: p.RefreshWithin, changes: feed.NewSet[string](),
		turns: relationship.NewQueue(), owned: make(map[string]*ownership),
		fast:     fetchQueue{places: fastPlaces, bound: promptWithin},
		slow:     fetchQueue{places: slowPlaces},
		retries:  hostPacer{free: make(map[string]time.Time)},
		finished: make(chan finish, fastPlaces+slowPlaces),
	}
}

// Changed schedules relationships that have changed, or whose streams have. It can be called from any goroutine.
func (s *Scheduler) Changed(names ...string) { s.changes.Add(names...) }

// ChangedAll schedules every relationship of the mirror. It can be called from any goroutine.
func (s *Scheduler) ChangedAll() { s.changes.AddAll() }

// SetMembers sets the members that share the work. It can be called from any goroutine.
func (s *Scheduler) SetMembers(members []string) {
	s.alive.Lock()
	s.alive.members = members
	s.alive.Unlock()
	s.changes.AddAll()
}

// Run gives turns until ctx ends, and returns nil after the last fetch has ended.
func (s *Scheduler) Run(ctx context.Context) error {
	defer s.fetches.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changes.Wake():
			s.update(s.changes.Take())
		case done := <-s.finished:
			s.done(ctx, done)
		case <-timer.C:
		}
		for name, ok := s.turns.Due(s.poller.now()); ok; name, ok = s.turns.Due(s.poller.now()) {
			s.start(ctx, name)
		}
		if at, ok := s.turns.Next(); ok {
			timer.Reset(at.Sub(s.poller.now()))
		} else {
			timer.Stop()
		}
		s.poller.metrics.owned.Set(float64(len(s.owned)))
		s.poller.metrics.queue("fast", &s.fast)
		s.poller.metrics.queue("slow", &s.slow)
	}
}

// update applies changes of relationships and of members.
func (s *Scheduler) update(affected feed.Affected[string]) {
	s.alive.Lock()
	s.members = s.alive.members
	s.alive.Unlock()
	if affected.All {
		for _, name := range s.poller.config.Mirror.Names() {
			affected.Keys[name] = struct{}{}
		}
		for name := range s.owned {
			affected.Keys[name] = struct{}{}
		}
	}
	var taken []string
	for name := range affected.Keys {
		e, exists := s.poller.config.Mirror.Get(name)
		mine := exists && e.Rel.InForce && e.Rel.Fetched() && membership.Owner(name, s.members) == s.member
		own, known := s.owned[name]
		switch {
		case !mine && known:
			s.drop(name, own)
		case mine && !known:
			taken = append(taken, name)
		case mine && own.generation != e.Rel.Generation:
			s.decided(name, own, e)
		case mine && s.streamEnded(own, e):
			s.plan(name, own, s.ended.After(s.poller.now()))
		case mine:
			s.shorten(name, own, s.interval(e))
		}
	}
	for _, name := range taken {
		s.takeOver(name, len(taken))
	}
}

// takeOver begins with a relationship that is new, or was another member's.
func (s *Scheduler) takeOver(name string, together int) {
	e, ok := s.poller.config.Mirror.Get(name)
	if !ok {
		return
	}
	own := &ownership{generation: e.Rel.Generation, interval: s.interval(e), together: together > 1}
	s.owned[name] = own
	s.plan(name, own, s.poller.now().Add(relationship.Takeover(own.interval, together, chance())))
}

// interval returns the interval at which a relationship is fetched while its peer answers.
func (s *Scheduler) interval(e mirror.Entry) time.Duration {
	return s.poller.config.Intake.Interval(e.Rel.PollInterval, e.Holding)
}

// drop gives up a relationship that ended, was suspended, or belongs to another member now.
func (s *Scheduler) drop(name string, own *ownership) {
	if own.cancel != nil {
		own.cancel()
	}
	s.turns.Remove(name)
	delete(s.owned, name)
	s.poller.disown(name)
}

// decided applies an operator's decision at once.
func (s *Scheduler) decided(name string, own *ownership, e mirror.Entry) {
	own.generation, own.penalty, own.failures = e.Rel.Generation, penalty{}, 0
	own.interval = s.interval(e)
	switch {
	case own.cancel != nil:
		own.again = true
		own.cancel()
	case !own.waiting:
		s.plan(name, own, s.poller.now())
	}
}

// shorten brings a turn forward if a new bundle requires a shorter interval.
func (s *Scheduler) shorten(name string, own *ownership, interval time.Duration) {
	if interval < own.interval && own.cancel == nil && !own.waiting {
		s.plan(name, own, s.poller.now().Add(relationship.Turn(interval, chance())))
	}
	own.interval = interval
}

func (s *Scheduler) plan(name string, own *ownership, at time.Time) {
	s.turns.Set(name, at)
	s.poller.config.Observations.Planned(name, own.generation, at, own.interval)
}

// streamEnded reports whether a stream kept the bundle up to date until now, so that it has to be fetched at once.
func (s *Scheduler) streamEnded(own *ownership, e mirror.Entry) bool {
	was := e.PeerHome() != "" && s.streams.TakeEnded(e.Rel.TrustDomain.Name()) || own.streamed
	own.streamed = s.covered(e)
	switch {
	case !was || own.streamed || own.waiting:
		return false
	case own.cancel != nil:
		own.again = true // the running fetch may have begun before the stream ended
		return false
	}
	return true
}

// covered reports whether streams keep up to date everything that is fetched for a relationship: the bundle, and the
// map of a hub.
func (s *Scheduler) covered(e mirror.Entry) bool {
	home, name := e.PeerHome(), e.Rel.TrustDomain.Name()
	return s.streams.Covers(home, name) && (e.Rel.Hub == nil || s.streams.Covers(home, name+relationship.MapSuffix))
}

// spared reports whether a turn is skipped because a stream keeps the bundle up to date.
func (s *Scheduler) spared(name string, own *ownership) bool {
	e, ok := s.poller.config.Mirror.Get(name)
	if !ok {
		return false
	}
	own.streamed = s.covered(e)
	return own.streamed && s.poller.now().Sub(own.fetched) < relationship.SafetyPoll
}

// start begins a fetch, or adds it to its queue.
func (s *Scheduler) start(ctx context.Context, name string) {
	own, ok := s.owned[name]
	if !ok {
		return
	}
	if s.spared(name, own) {
		s.plan(name, own, s.poller.now().Add(relationship.Turn(own.interval, chance())))
		return
	}
	q := &s.fast
	if own.penalty.slow() {
		q = &s.slow
	}
	if q.running == q.places {
		s.enqueue(q, name, own)
		return
	}
	q.running++
	own.waiting = false
	fetching, cancel := context.WithCancel(ctx)
	own.cancel, own.fetched = cancel, s.poller.now()
	s.fetches.Go(func() {
		defer cancel()
		started := s.poller.now()
		s.finished <- finish{name, own, q, started, s.Fetch(fetching, name, q.bound)}
	})
}

// enqueue adds a fetch behind those with no higher penalty.
func (s *Scheduler) enqueue(q *fetchQueue, name string, own *ownership) {
	own.waiting = true
	i := len(q.waiting)
	for ; i > 0; i-- {
		if other, ok := s.owned[q.waiting[i-1]]; ok && other.penalty.level <= own.penalty.level {
			break
		}
	}
	q.waiting = slices.Insert(q.waiting, i, name)
}

// done plans the next turn, and starts the next fetch of the queue.
func (s *Scheduler) done(ctx context.Context, f finish) {
	f.queue.running--
	if own := f.own; s.owned[f.name] == own {
		own.cancel = nil
		own.penalty = own.penalty.after(prompt(f.outcome))
		own.count(f.outcome)
		if e, ok := s.poller.config.Mirror.Get(f.name); ok {
			own.interval = s.interval(e)
		}
		if errors.Is(f.outcome.Err, relationship.ErrUnfinished) && !own.again {
			s.start(ctx, f.name)
		} else {
			s.plan(f.name, own, s.next(own, f))
			own.together = false
		}
		own.again = false
	}
	for len(f.queue.waiting) > 0 && f.queue.running < f.queue.places {
		name := f.queue.waiting[0]
		f.queue.waiting = f.queue.waiting[1:]
		if own, ok := s.owned[name]; ok && own.waiting {
			s.start(ctx, name)
		}
	}
}

// next returns when a relationship is fetched after a fetch.
func (s *Scheduler) next(own *ownership, f finish) time.Time {
	if own.together {
		own.fetched = own.fetched.Add(-relationship.SpreadOut(relationship.SafetyPoll, chance()))
	}
	switch {
	case own.again:
		return s.poller.now()
	case f.outcome.Local():
		return f.started.Add(relationship.Turn(min(own.interval, relationship.StoreRetry), chance()))
	case own.failures > 0:
		return s.retry(own, f)
	case own.together:
		return f.started.Add(relationship.SpreadOut(own.interval, chance()))
	}
	return f.started.Add(relationship.Turn(own.interval, chance()))
}

// chance returns a random number in [0, 1). It spreads load, and need not be hard to guess.
func chance() float64 { return rand.Float64() }
