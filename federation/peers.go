package federation

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"

	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
)

// PeerConfig says how this member reaches those of other clusters.
type PeerConfig struct {
	// Home is the home trust domain of this cluster.
	Home spiffeid.TrustDomain
	// Dial opens a verified connection to a member of the cluster whose home trust domain is given, and Credentials let gRPC
	// use it. The X509-SVID at the other end is read from the connection's AuthInfo, an [access.Identified].
	Dial        func(ctx context.Context, address string, home spiffeid.TrustDomain) (net.Conn, error)
	Credentials credentials.TransportCredentials
	// Cargo is what streams carry besides bundles; nil: nothing.
	Cargo Cargo
}

const (
	// maxStreamsPerPeer bounds the streams of one peer at one member: its members may each open one while the work moves among them.
	maxStreamsPerPeer = 4
	// reconcilePace is the least time between two looks at what streams there should be.
	reconcilePace = 10 * time.Millisecond
)

// peers keeps this member's streams to other clusters.
type peers struct {
	manager *Manager
	config  PeerConfig
	reports *PeerReports
	remote  *remoteStreams
	// open is [peers.call]; a simulation has networks of its own.
	open func(ctx context.Context, address string, home spiffeid.TrustDomain) (opened, error)
	// wakes tells the reconciler that something is due.
	wakes chan struct{}
	// refusals bounds the log lines of streams that were refused.
	refusals *rate.Limiter
	// work are all goroutines of streams and dialers.
	work sync.WaitGroup

	mu       sync.Mutex
	due      replan
	hosted   map[string]session.Hosted
	plans    map[string]relationship.PeerPlan // by the peer's home trust domain
	named    map[string]bool                  // peers that relationships name, suspended ones included
	members  []string
	streams  map[string][]*stream
	dialers  map[string]*dialer
	dialing  relationship.Pacer
	paces    map[string]*peerPace
	ended    map[string]bool // domains that a stream kept up to date, and does no more
	draining bool
	planned  bool            // the relationships were read
	running  context.Context // nil before Run and after it
}

func newPeers(m *Manager, c PeerConfig) *peers {
	p := &peers{
		manager: m, config: c, wakes: make(chan struct{}, 1), plans: map[string]relationship.PeerPlan{}, named: map[string]bool{},
		streams: map[string][]*stream{}, dialers: map[string]*dialer{}, paces: map[string]*peerPace{}, ended: map[string]bool{}, refusals: rate.NewLimiter(refusalRate, refusalBurst),
	}
	p.reports = newPeerReports(m.now, m.peerAlive, p.homes)
	p.remote, p.open = newRemoteStreams(p), p.call
	return p
}

// run keeps the streams until ctx ends, and returns when all of them have ended.
func (p *peers) run(ctx context.Context) error {
	p.mu.Lock()
	p.running = ctx
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.running = nil
		p.mu.Unlock()
		p.drain()
		p.work.Wait()
	}()
	pace := time.NewTicker(reconcilePace)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wakes:
			p.reconcile(ctx)
		}
		<-pace.C
	}
}

// followHosted tells the streams of every change of a hosted bundle.
func (p *peers) followHosted(ctx context.Context) error {
	over := []raftstore.Prefix{p.manager.config.Trust.Hosted.Bundles.Prefix("")}
	if p.manager.config.Trust.Hosted.Statements != nil {
		over = append(over, p.manager.config.Trust.Hosted.History.Prefix(""))
	}
	return feed.Latest(ctx, p.manager.config.Store, over, func(v *raftstore.View) error {
		p.mu.Lock()
		before := p.hosted
		p.mu.Unlock()
		next, err := p.manager.hostedBundlesOf(v, before)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.hosted = next
		p.mu.Unlock()
		for td := range before {
			if _, ok := next[td]; !ok {
				p.manager.mapLog.set(td, relationship.Version{})
			}
		}
		for td, h := range next {
			p.manager.mapLog.set(td, h.Version)
		}
		for _, s := range p.all() {
			s.signal()
		}
		return nil
	})
}

// alive says who the members are now.
func (p *peers) alive(members []string) {
	p.mu.Lock()
	p.members = members
	p.mu.Unlock()
	p.planAll(false)
}

// farewell says why no stream is kept with a peer any more.
func (p *peers) farewell(home string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.named[home] {
		return session.Errorf("suspended", "every relationship of %s with this peer is suspended", p.config.Home.Name())
	}
	return session.Errorf("ended", "%s has no relationship any more that names this peer", p.config.Home.Name())
}

// dialsLocked reports whether this member is the one that opens the stream. p.mu is held.
func (p *peers) dialsLocked(plan relationship.PeerPlan) bool {
	return p.config.Dial != nil && len(plan.Addresses) > 0 && p.manager.owner(plan.Home, p.members) == p.manager.member && !p.draining
}

// yields reports whether this cluster's own dial is to give way: where both sides dial, that of the lower home trust domain is kept. Only
// a stream that is there makes the other side give way, so that a dial that cannot get through harms nothing.
func (p *peers) yields(home string) bool {
	if p.config.Home.Name() < home {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.streams[home], func(s *stream) bool { return !s.session.Outgoing }) || p.remote.incoming(home)
}

func (p *peers) yield(s *stream) {
	switch home := s.session.Home; {
	case !s.session.Outgoing:
	case p.yields(home):
		s.close(session.Errorf("duplicate", "the stream that %s opened is kept", home))
	case !p.dials(home):
		s.close(session.Errorf("moved", "another member of %s keeps the stream now", p.config.Home.Name()))
	}
}

func (p *peers) dials(home string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	plan, ok := p.plans[home]
	return ok && p.dialsLocked(plan)
}

// worldOf is what a session with a peer has to know. Neither plans nor the map of hosted bundles are changed once they are made.
func (p *peers) worldOf(home string) session.World {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := session.World{Plan: p.plans[home], MissingStatements: p.manager.intake.LacksStatements, Attested: p.manager.wordsBy}
	if session.MayHave(w.Plan) {
		w.Hosted = p.hosted
	}
	return w
}

// signalHubs has the streams of those who take this cluster's map tell of what changed in it.
func (p *peers) signalHubs() {
	for _, s := range p.all() {
		if s.serving.serves() {
			s.signal()
		}
	}
}

func (p *peers) all() (all []*stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, streams := range p.streams {
		all = append(all, streams...)
	}
	return all
}

// join takes a stream in, unless the peer has none to have here.
func (p *peers) join(s *stream) error {
	home := s.session.Home
	p.mu.Lock()
	plan, ok := p.plans[home]
	streams := p.streams[home]
	var older *stream
	for _, other := range streams {
		if other.session.Remote == s.session.Remote && other.session.Outgoing == s.session.Outgoing {
			older = other
		}
	}
	var err error
	switch {
	case p.draining || p.running == nil:
		err = session.Errorf("draining", "this member is stopping; try another one")
	case !ok || len(plan.Wanted) == 0:
		err = session.Errorf("not_a_peer", "%s has no active relationship that names %s as its peer's home trust domain", p.config.Home.Name(), relationship.Quote(home))
	default:
		if err = p.crowdedLocked(s, older); err == nil {
			s.pace = p.paceLocked(home)
			p.streams[home] = append(streams, s)
			p.work.Add(1) // until keep is done with it
		}
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if older != nil {
		older.close(session.Errorf("superseded", "the same member opened another stream"))
	}
	p.plan(home) // a dial of this cluster may have to give way
	return nil
}

// keep runs a stream that has joined, and writes down how it ended.
func (p *peers) keep(s *stream) error {
	defer p.work.Done()
	m := p.manager
	direction := directionName(s.session.Outgoing)
	m.metrics.streams.WithLabelValues(direction).Inc()
	m.log.Info("stream to a peer is open", "peer", s.session.Home, "member", s.session.Remote, "direction", direction)
	p.noted(s.session.Home)
	err := s.run()
	p.mu.Lock()
	home := s.session.Home
	p.streams[home] = slices.DeleteFunc(p.streams[home], func(other *stream) bool { return other == s })
	if len(p.streams[home]) == 0 {
		delete(p.streams, home)
	}
	p.mu.Unlock()
	reason := session.ReasonOf(err)
	m.metrics.streams.WithLabelValues(direction).Dec()
	m.metrics.streamsEnded.WithLabelValues(reason).Inc()
	text := relationship.Clip(strings.TrimSpace(errorText(err)))
	level := m.log.Warn
	if slices.Contains(session.OrderlyReasons, reason) {
		level = m.log.Info
	}
	level("stream to a peer has ended; its bundles are fetched until it is back", "peer", home, "member", s.session.Remote, "direction", direction, "result", reason, "error", text)
	p.reports.ended(home, s.session.Remote, s.session.Outgoing, reason, text)
	if reason == "ended" {
		p.manager.consents.askSoon(home)
	}
	p.noted(home)
	p.plan(home)
	return err
}

func errorText(err error) string {
	if err == nil {
		return "the member is stopping"
	}
	return err.Error()
}

func directionName(outgoing bool) string {
	if outgoing {
		return "outgoing"
	}
	return "incoming"
}

func (p *peers) wantedOf(home string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, 0, len(p.plans[home].Wanted))
	for td := range p.plans[home].Wanted {
		names = append(names, td)
	}
	return names
}

// drain ends every stream and lets none in any more: this member is stopping.
func (p *peers) drain() {
	p.mu.Lock()
	p.draining = true
	for home, d := range p.dialers {
		d.cancel()
		delete(p.dialers, home)
	}
	p.mu.Unlock()
	for _, s := range p.all() {
		s.close(session.Errorf("draining", "member %s of %s is stopping", p.manager.member, p.config.Home.Name()))
	}
}
