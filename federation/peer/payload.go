package peer

import (
	"context"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

// Payload sends and receives messages that this package does not interpret: those of the services that clusters share.
type Payload interface {
	// Open is called when a stream opens. The returned session is run until the stream ends.
	Open(PayloadStream) PayloadSession
}

// PayloadStream is a stream as its payload uses it.
type PayloadStream struct {
	// Home is the home trust domain of the peer, from its verified X509-SVID.
	Home string
	// Domains returns, in order, the trust domains of the relationships that are in force and name the peer. It may be
	// called from any goroutine. When the relationships change, Next is called again.
	Domains func() []string
	// Wake causes a call of Next. It may be called from any goroutine, also after the stream has ended, and does not
	// block.
	Wake func()
}

// PayloadSession is the payload of one stream.
type PayloadSession interface {
	// Run does the background work of the session until ctx ends, which is when the stream ends.
	Run(ctx context.Context)
	// Next returns the messages to send now, and counts them as sent. If again is positive, Next is called after that
	// time even without a wake. It is called from the sending goroutine and must not block. Bundles are sent first.
	Next(now time.Time) (messages []*ententev1.PeerMessage, again time.Duration)
	// Receive takes over a message of the peer. It is called from the receiving goroutine and must not block, because
	// bundles wait behind it. An error means that the peer violates the protocol, and ends the stream.
	Receive(m *ententev1.PeerMessage) error
}

// isPayload reports whether a message belongs to the payload.
func isPayload(m *ententev1.PeerMessage) bool {
	switch m.GetContent().(type) {
	case *ententev1.PeerMessage_Services, *ententev1.PeerMessage_ServiceSets:
		return true
	}
	return false
}

// openPayload starts the payload of the stream.
func (s *stream) openPayload() {
	payload := s.streams.config.Payload
	if payload == nil {
		return
	}
	home := s.session.Home
	s.payload = payload.Open(
		PayloadStream{Home: home, Wake: s.signal, Domains: func() []string { return s.streams.Domains(home) }},
	)
	s.streams.work.Go(func() { s.payload.Run(s.ctx) })
}

func (s *stream) receivePayload(m *ententev1.PeerMessage) error {
	if s.payload == nil {
		return nil
	}
	if err := s.payload.Receive(m); err != nil {
		return session.Errorf("malformed_services", "%s", relationship.Clip(err.Error()))
	}
	return nil
}

func (s *stream) nextPayload(now time.Time) ([]*ententev1.PeerMessage, time.Duration) {
	if s.payload == nil {
		return nil, 0
	}
	return s.payload.Next(now)
}
