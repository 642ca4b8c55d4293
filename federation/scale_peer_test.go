package federation

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

// simPeer is a peer of one real cluster, without a store. It runs the real session's rules, serves a real document, and
// keeps the last version that it received of the real cluster's bundle.
type simPeer struct {
	w       *world
	home    spiffeid.TrustDomain
	real    *cluster
	counted traffic
	// learned is called with every version that was stored.
	learned func(p *simPeer, sequence uint64)

	mu       sync.Mutex
	hosted   session.Hosted
	held     relationship.Holding
	sessions map[*pipeEnd]*session.Session
}

func (w *world) newSimPeer(a *simAuthority, of *cluster) *simPeer {
	p := &simPeer{w: w, home: a.td, real: of, sessions: map[*pipeEnd]*session.Session{}}
	p.publish(a.bundle(w.t, 1))
	p.held = relationship.NewHolding(of.home.bundle(w.t, 1), time.Time{}, 1)
	w.add(a.td.Name(), p)
	return p
}

func (p *simPeer) name() string { return p.home.Name() }

// publish hosts a bundle from now on, and sends it if a stream is open.
func (p *simPeer) publish(b *bundle.Bundle) {
	v := relationship.Version{Digest: b.Digest()}
	v.Sequence, v.Ordered = b.Sequence()
	hint, _ := b.RefreshHint()
	p.mu.Lock()
	p.hosted = session.Hosted{Version: v, Document: b.Marshal(), Hint: hint}
	ends := make([]*pipeEnd, 0, len(p.sessions))
	for e := range p.sessions {
		ends = append(ends, e)
	}
	p.mu.Unlock()
	for _, e := range ends {
		p.flush(e)
	}
}

func (p *simPeer) sent() *traffic { return &p.counted }

func (p *simPeer) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	document := p.hosted.Document
	p.mu.Unlock()
	serveCounted(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveDocument(w, r, document) }))
}

// accept accepts a stream from the real cluster.
func (p *simPeer) accept(from *traffic, home spiffeid.TrustDomain, member string) (*pipeEnd, string, error) {
	theirs, ours := newPipe(from, &p.counted, p.w.latency(home.Name(), p.name()))
	go p.runSession(ours, member, false)
	return theirs, "member-1", nil
}

// dial keeps a stream open until ctx ends, and retries at the pace of a real dialer.
func (p *simPeer) dial(ctx context.Context) {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval, retry.RandomizationFactor = peer.FirstDial, peer.LastDial, 0.5
	for ctx.Err() == nil {
		began := time.Now()
		if p.w.handshake(ctx, p.name(), p.real.home.td.Name()) == nil {
			if e, member, err := p.real.accept(&p.counted, p.home, "member-1"); err == nil {
				stop := context.AfterFunc(ctx, e.hangUp)
				p.runSession(e, member, true)
				stop()
				e.hangUp()
			}
		}
		if time.Since(began) > peer.Settled {
			retry.Reset()
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry.NextBackOff()):
		}
	}
}

// runSession runs a session to its end.
func (p *simPeer) runSession(e *pipeEnd, member string, outgoing bool) {
	real := p.real.home.td.Name()
	p.mu.Lock()
	p.sessions[e] = session.New(p.name(), "member-1", real, member, outgoing, time.Now())
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.sessions, e)
		p.mu.Unlock()
		e.Finish()
	}()
	p.flush(e)
	p.mu.Lock() // so that beat is set before it fires
	var beat *time.Timer
	beat = time.AfterFunc(session.LongestHeartbeat, func() {
		p.flush(e)
		p.mu.Lock()
		defer p.mu.Unlock()
		if s, ok := p.sessions[e]; ok {
			beat.Reset(max(time.Until(s.NextHeartbeat), session.ShortestHeartbeat))
		}
	})
	p.mu.Unlock()
	defer beat.Stop()
	for {
		m, err := e.Recv()
		if err != nil || !p.receive(e, m) {
			return
		}
		p.flush(e)
	}
}

// worldLocked returns the input of a session. p.mu is held.
func (p *simPeer) worldLocked() session.World {
	real := p.real.home.td.Name()
	return session.World{
		Hosted: map[string]session.Hosted{p.name(): p.hosted},
		Plan:   relationship.PeerPlan{Home: real, Wanted: map[string]relationship.Holding{real: p.held}},
	}
}

// receive handles a message. It returns false if the stream has ended.
func (p *simPeer) receive(e *pipeEnd, m *ententev1.PeerMessage) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[e]
	got, err := s.Receive(m, p.worldLocked(), time.Now())
	if err != nil {
		return false
	}
	if got.Bundle != nil {
		b, _, err := bundle.Parse(p.real.home.td, got.Bundle.GetDocument())
		require.NoError(p.w.t, err)
		p.held = relationship.NewHolding(b, time.Time{}, p.held.Revision+1)
		s.Reply(p.real.home.td.Name(), p.held.Version(), "")
		if p.learned != nil {
			p.learned(p, p.held.Sequence)
		}
	}
	return true
}

// flush sends the pending messages.
func (p *simPeer) flush(e *pipeEnd) {
	p.mu.Lock()
	s, ok := p.sessions[e]
	if !ok {
		p.mu.Unlock()
		return
	}
	out := s.Next(p.worldLocked(), time.Now())
	p.mu.Unlock()
	for _, m := range out {
		if e.Send(m) != nil {
			return
		}
	}
}
