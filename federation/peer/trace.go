package peer

import (
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/internal/span"
)

// sendings are the spans of the bundles that were sent on a stream and are not acknowledged, by trust domain. The mutex
// of the stream guards them.
type sendings map[string]trace.Span

var (
	errNewer = errors.New("a later version was sent")
	errEnded = errors.New("the stream ended before the peer acknowledged the version")
)

// sent starts the span of a bundle that is about to be sent.
func (s *stream) sent(m *ententev1.PeerMessage) {
	b := m.GetBundle()
	if b == nil {
		return
	}
	td := b.GetTrustDomain()
	s.mu.Lock()
	defer s.mu.Unlock()
	version := s.session.Sent(td)
	if before, ok := s.sendings[td]; ok {
		span.End(before, errNewer)
	}
	_, s.sendings[td] = span.StartOn(s.ctx, span.Bundle{
		TrustDomain: td, Sequence: version.Sequence, Unordered: !version.Ordered, Digest: version.Digest,
	}, "send bundle", attribute.String("entente.peer", s.session.Home))
}

// acknowledged ends the span of a bundle that the peer has stored or refused.
func (s *stream) acknowledged(m *ententev1.PeerAcknowledgement) {
	td := m.GetVersion().GetTrustDomain()
	s.mu.Lock()
	defer s.mu.Unlock()
	sending, ok := s.sendings[td]
	_, version, err := session.ParseVersion(m.GetVersion())
	refusal := s.session.Acknowledged[td].Refusal
	if !ok || refusal == "" && (err != nil || version != s.session.Sent(td)) {
		return
	}
	delete(s.sendings, td)
	err = nil
	if refusal != "" {
		err = fmt.Errorf("the peer refused it: %s", refusal)
	}
	span.End(sending, err)
}

// endSendings ends what is not acknowledged, with the stream.
func (s *stream) endSendings() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sending := range s.sendings {
		span.End(sending, errEnded)
	}
	clear(s.sendings)
}
