package federation

import (
	"context"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

// Cargo is who has more to say to peers than bundles: the services that clusters share. This package gives it messages and takes them
// from it, and knows nothing of what they say.
type Cargo interface {
	// Carry begins what a stream carries. It is called when a stream opens, and what it returns is run to the stream's end.
	Carry(CargoStream) Freight
}

// CargoStream is a stream, as whoever has something to carry sees it.
type CargoStream struct {
	// Home is the peer's home trust domain, as its X509-SVID has it.
	Home string
	// Domains are the trust domains of the relationships that are in force and name the peer, in order. It may be called from any
	// goroutine, and changes with the relationships; then Next is called again.
	Domains func() []string
	// Wake has Next called soon. It may be called from any goroutine, also after the stream has ended, and does not block.
	Wake func()
}

// Freight is what one stream carries besides bundles.
type Freight interface {
	// Run does what the freight has to do by itself, until ctx ends with the stream.
	Run(ctx context.Context)
	// Next returns what is to be sent now, which counts as sent, and when to ask again although nobody wakes; 0: not before. It is
	// called from the goroutine that sends, and must not block. Bundles go first.
	Next(now time.Time) (out []*ententev1.PeerMessage, again time.Duration)
	// Take takes in a message of the peer's, from the goroutine that receives: it must not block, for bundles wait behind it. An
	// error ends the stream: the peer does not keep to the protocol.
	Take(m *ententev1.PeerMessage) error
}

// isFreight says whether a message is for the freight.
func isFreight(m *ententev1.PeerMessage) bool {
	switch m.GetContent().(type) {
	case *ententev1.PeerMessage_Services, *ententev1.PeerMessage_ServiceSets:
		return true
	}
	return false
}

// load gives a stream its freight.
func (s *stream) load() {
	c := s.peers.config.Cargo
	if c == nil {
		return
	}
	home := s.session.Home
	s.freight = c.Carry(CargoStream{Home: home, Wake: s.signal, Domains: func() []string { return s.peers.inForceWith(home) }})
	s.peers.work.Go(func() { s.freight.Run(s.ctx) })
}

// inForceWith lists the trust domains that one stream with a peer serves.
func (p *peers) inForceWith(home string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return session.Domains(p.plans[home])
}

// takeFreight hands a message to the freight.
func (s *stream) takeFreight(m *ententev1.PeerMessage) error {
	if s.freight == nil {
		return nil
	}
	if err := s.freight.Take(m); err != nil {
		return session.Errorf("malformed_services", "%s", relationship.Clip(err.Error()))
	}
	return nil
}

// nextFreight is what the freight has to send, and when to ask again.
func (s *stream) nextFreight(now time.Time) ([]*ententev1.PeerMessage, time.Duration) {
	if s.freight == nil {
		return nil, 0
	}
	return s.freight.Next(now)
}
