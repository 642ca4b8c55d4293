package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore/feed"
)

const (
	// MaxStreamsPerPeer bounds the streams of one peer at one member: each of the peer's members may have one open
	// while the ownership of the peer moves among them.
	MaxStreamsPerPeer = 4
	// reconcilePace is the least time between two reconciliations.
	reconcilePace = 10 * time.Millisecond
)

// Streams keeps this member's streams to other clusters.
type Streams struct {
	config     Config
	metrics    *metrics
	reports    *Reports
	remote     *remote
	hosted     *hosted
	budgets    *budgets
	coverage   *coverage
	plans      *plans
	reconciler *reconciler
	// due holds the home trust domains of the peers to reconcile.
	due *feed.Set[string]
	// refusals limits the log lines about streams that were refused.
	refusals *rate.Limiter
	// work waits for all goroutines of streams and dialers.
	work sync.WaitGroup

	// mu also guards writes to plans, so that a stream joins only while its peer has a plan.
	mu       sync.Mutex
	streams  map[string][]*stream // by the peer's home trust domain
	draining bool
	read     bool            // the relationships were read
	running  context.Context // nil before Run and after it
}

// New returns the streams of a member. None is opened or accepted before [Streams.Run].
func New(c Config) (*Streams, error) {
	s := &Streams{
		config: c, budgets: &budgets{byHome: map[string]*Budget{}},
		plans: newPlans(c.Member()), due: feed.NewSet[string](),
		refusals: rate.NewLimiter(logRate, LogBurst), streams: map[string][]*stream{},
	}
	if s.config.Open == nil && c.Dial != nil {
		s.config.Open = c.openCall
	}
	s.reports = newReports(c.Now, c.Alive, s.plans.homes)
	s.remote = newRemote(s)
	s.reconciler = &reconciler{streams: s, dialers: map[string]*dialer{}}
	s.coverage = &coverage{streams: s, ended: map[string]bool{}}
	s.hosted = &hosted{config: s.config, changed: func() {
		for _, stream := range s.all() {
			stream.signal()
		}
	}}
	var err error
	if s.metrics, err = newMetrics(c.Registerer); err != nil {
		return nil, fmt.Errorf("register the metrics of streams: %w", err)
	}
	return s, nil
}

// Member returns the ID of this member.
func (c Config) Member() string { return c.Store.MemberID() }

// Reports returns the section of the heartbeats in which this member reports its streams, under the name [Section].
func (p *Streams) Reports() *Reports { return p.reports }

// Run keeps the streams until ctx ends. It returns when all of them have ended.
func (p *Streams) Run(ctx context.Context) error {
	p.mu.Lock()
	p.running = ctx
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.running = nil
		p.mu.Unlock()
		p.Drain()
		p.work.Wait()
	}()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.hosted.run(ctx) })
	group.Go(func() error { return p.remote.run(ctx) })
	group.Go(func() error {
		return p.due.Each(ctx, feed.Pace{Least: reconcilePace}, func(due feed.Affected[string]) error {
			p.reconciler.reconcile(ctx, due)
			return nil
		})
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Drain ends every stream with the reason that this member is stopping, and accepts no more. Run does so too when it
// ends, but by then the port may be closed.
func (p *Streams) Drain() {
	p.mu.Lock()
	p.draining = true
	p.reconciler.stopLocked()
	p.mu.Unlock()
	for _, s := range p.all() {
		s.close(session.Errorf("draining", "member %s of %s is stopping", p.config.Member(), p.config.Home.Name()))
	}
}

// MapChanged wakes the streams on which this cluster's map is followed.
func (p *Streams) MapChanged() {
	for _, s := range p.all() {
		if s.maps.Active() {
			s.signal()
		}
	}
}

// LogAllowed reports whether one more refusal of what a peer sends may be logged and audited.
func (p *Streams) LogAllowed(home string) bool { return p.budgets.logAllowed(home, p.config.Now()) }

// BudgetOf returns the budget of a peer at this member.
func (p *Streams) BudgetOf(home string) *Budget { return p.budgets.of(home) }

// Domains returns, in order, the trust domains that one stream with a peer carries.
func (p *Streams) Domains(home string) []string {
	plan, _ := p.plans.of(home)
	return session.Domains(plan)
}

// world returns what the session with a peer depends on. The values that it refers to do not change.
func (p *Streams) world(home string) session.World {
	plan, _ := p.plans.of(home)
	w := session.World{
		Plan:              plan,
		MissingStatements: p.config.Receiver.MissingStatements,
		Attested:          p.config.Hub.Attested,
	}
	if session.MayHave(plan) {
		w.Hosted = p.hosted.get()
	}
	return w
}

func (p *Streams) of(home string) []*stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.streams[home])
}

func (p *Streams) all() (all []*stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, streams := range p.streams {
		all = append(all, streams...)
	}
	return all
}

// join adds a stream, if its peer may have one at this member. It takes the place of an older one from the same member
// in the same direction.
func (p *Streams) join(s *stream) error {
	older, err := p.add(s)
	if err != nil {
		return err
	}
	if older != nil {
		older.close(session.Errorf("superseded", "the same member opened another stream"))
	}
	p.Plan(s.session.Home) // a dialler of this cluster may have to give way
	return nil
}

func (p *Streams) add(s *stream) (older *stream, err error) {
	home := s.session.Home
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining || p.running == nil {
		return nil, session.Errorf("draining", "this member is stopping; try another one")
	}
	if plan, ok := p.plans.of(home); !ok || len(plan.Wanted) == 0 {
		return nil, session.Errorf(
			"not_a_peer",
			"%s has no active relationship that names %s as its peer's home trust domain",
			p.config.Home.Name(),
			relationship.Quote(home),
		)
	}
	streams := p.streams[home]
	for _, other := range streams {
		if other.session.Remote == s.session.Remote && other.session.Outgoing == s.session.Outgoing {
			older = other
		}
	}
	budget := p.BudgetOf(home)
	// Streams that are ending count too.
	if open := len(streams); older == nil && open >= MaxStreamsPerPeer || open >= 2*MaxStreamsPerPeer {
		return nil, session.Errorf("too_many_streams", "this member has %d streams with %s already", open, home)
	}
	if !s.session.Outgoing && !budget.opens.AllowN(p.config.Now(), 1) {
		return nil, session.Errorf(
			"too_many_streams",
			"%s opens streams faster than %d a second; wait longer between two",
			home,
			openRate,
		)
	}
	s.budget, s.maps = budget, p.config.Hub.Serve(budget.Maps)
	p.streams[home] = append(streams, s)
	p.work.Add(1) // until keep returns
	return older, nil
}

// keep runs a stream that has joined, and records how it ended.
func (p *Streams) keep(s *stream) error {
	defer p.work.Done()
	home, remote, direction := s.session.Home, s.session.Remote, directionName(s.session.Outgoing)
	open := p.metrics.streams.WithLabelValues(direction)
	open.Inc()
	p.config.Logger.Info("stream to a peer opened", "peer", home, "member", remote, "direction", direction)
	p.coverage.record(home)
	err := s.run()
	p.mu.Lock()
	p.streams[home] = slices.DeleteFunc(p.streams[home], func(other *stream) bool { return other == s })
	if len(p.streams[home]) == 0 {
		delete(p.streams, home)
	}
	p.mu.Unlock()
	reason := session.ReasonOf(err)
	open.Dec()
	p.metrics.streamsEnded.WithLabelValues(reason).Inc()
	text := "the member is stopping"
	if err != nil {
		text = relationship.Clip(strings.TrimSpace(err.Error()))
	}
	level := p.config.Logger.Warn
	if slices.Contains(session.OrderlyReasons, reason) {
		level = p.config.Logger.Info
	}
	level("stream to a peer ended; its bundles are fetched until it is back",
		"peer", home, "member", remote, "direction", direction, "result", reason, "error", text)
	p.reports.ended(home, remote, s.session.Outgoing, reason, text)
	if reason == "ended" {
		p.config.Ended(home)
	}
	p.coverage.record(home)
	p.Plan(home)
	return err
}

func directionName(outgoing bool) string {
	if outgoing {
		return "outgoing"
	}
	return "incoming"
}
