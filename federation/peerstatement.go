package federation

import (
	"context"
	"fmt"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

// reasonStatements ends a stream on which too many statements were refused.
const reasonStatements = "refused_statements"

// blame is whose fault it is that statements which a peer brought are not taken.
type blame int

const (
	// nobodys: they were taken, or are known already; or this cluster could not look at them, and asks the endpoint.
	nobodys blame = iota
	// perhapsOurs: a peer in good order brings such for a moment, where what is stored here is a version behind, was changed by an operator
	// meanwhile, or is another's word. A peer has a budget of those, [excuseBurst].
	perhapsOurs
	// theirs: whatever is stored here, no peer in good order brings them.
	theirs
)

// blameOf is the rule of whose fault a result is. What hangs on nothing but the message itself is the peer's; what hangs on what this
// cluster holds may be its own: a bundle that came from another source and was no good, say, would make an honest peer's statement look forged.
func blameOf(result string) blame {
	switch result {
	case intake.StatementsTaken, intake.StatementsUnjudged:
		return nobodys
	case intake.StatementsEarly, relationship.ReasonNotWanted, relationship.AlarmSplitView, bundle.Reason(statement.ErrSignature):
		return perhapsOurs
	}
	return theirs
}

// takeStatements takes what the peer brought. The error ends the stream: too much of what it brought was refused.
func (s *stream) takeStatements(brought *ententev1.PeerStatements) error {
	m := s.peers.manager
	result, err := m.receiveStatements(s.ctx, s.session.Home, brought)
	if s.ctx.Err() != nil {
		return nil //nolint:nilerr // it has ended for a reason of its own
	}
	m.intake.StatementsTotal.WithLabelValues(result).Inc()
	now, whose := m.now(), blameOf(result)
	if err != nil {
		text, level := "statements that a peer brought are not taken now", m.log.Debug
		switch {
		case result == intake.StatementsUnjudged:
			text = unwrittenStatements
		case whose == theirs:
			text = "statements that a peer brought are none; its endpoint is asked"
		}
		if whose != perhapsOurs && s.peers.tells(s.session.Home) {
			level = m.log.Warn // of more there is the metric
		}
		level(text, "trust_domain", brought.GetTrustDomain(), "peer", s.session.Home, "result", result, "error", relationship.Clip(err.Error()))
	}
	if whose == nobodys || whose == perhapsOurs && s.pace.excuses.AllowN(now, 1) {
		return nil
	}
	s.mu.Lock()
	s.session.Refusals++
	s.mu.Unlock()
	if s.tooMuchRefused() {
		return session.Errorf(reasonStatements, "more than %d bundles and statements that the peer brought were refused, the last ones: %s", session.MaxRefusals, result)
	}
	return nil
}

// receiveStatements takes the statements that a peer brought on a bundle that a relationship has from it. What they are worth is
// judged as if its endpoint had served them; where they are no such document the endpoint is asked for it. The result is a name from a
// bounded set; the error says why they were not taken.
func (m *Manager) receiveStatements(ctx context.Context, home string, brought *ententev1.PeerStatements) (result string, err error) {
	e, ok := m.catalog.Get(brought.GetTrustDomain())
	if !ok || e.PeerHome() != home {
		return relationship.ReasonNotWanted, relationship.ErrNotWanted
	}
	statements, err := statement.ParseList(e.Rel.TrustDomain, brought.GetDocument())
	if err == nil && len(statements) == 0 {
		err = endpoint.ErrNoStatements
	}
	if err != nil {
		return relationship.ReasonOf(err), err
	}
	result, err = m.intake.TakeStatements(ctx, brought.GetTrustDomain(), statements)
	if err == nil && result != intake.StatementsTaken {
		err = fmt.Errorf("none of %d statements could be taken over by what is stored of %s", len(statements), brought.GetTrustDomain())
	}
	return result, err
}
