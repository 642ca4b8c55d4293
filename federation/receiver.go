package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/relationship"
)

// receiver applies the rules of fetched bundles to those that peers send. It implements [peer.Receiver].
type receiver struct {
	manager *Manager
	// confirmed is when peers last confirmed what is stored of a domain.
	confirmed confirmations
}

// ReceiveBundle stores a bundle in the same transaction as one that was fetched. Any member can run it.
func (r *receiver) ReceiveBundle(ctx context.Context, home, td string, document []byte) peer.Outcome {
	m := r.manager
	began := m.now()
	var v relationship.Version
	var out intake.Outcome
	var generation uint64
	for range attempts {
		b, err := m.basisOf(m.config.Store.View(), td)
		if err == nil && (b.Rel.Peer == nil || b.Rel.Peer.Home.Name() != home) {
			err = relationship.ErrNotWanted
		}
		if errors.Is(err, relationship.ErrNotWanted) || errors.Is(err, relationship.ErrEnded) {
			// The relationship may have been deleted meanwhile, or a peer may send any names. Nothing is recorded.
			return peer.Outcome{Refusal: relationship.ReasonNotWanted, Fault: peer.FaultUnclear}
		}
		if err != nil {
			out = intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
			break
		}
		generation, b.Source = b.Rel.Generation, "peer "+home
		if v, out = r.attempt(ctx, home, td, b, document); !errors.Is(out.Err, relationship.ErrSuperseded) {
			break
		}
	}
	received := peer.Outcome{Version: v, Unavailable: out.Local()}
	failure := ""
	if out.Err != nil {
		received.Refusal, received.Fault, received.Final = out.Result, peer.FaultPeer, relationship.IsDecision(out.Result)
		failure = relationship.Clip(out.Err.Error())
	}
	if ctx.Err() != nil {
		return received
	}
	m.metrics.received.WithLabelValues(out.Result).Inc()
	if out.Err != nil {
		level := m.log.Debug
		if m.streams.LogAllowed(home) {
			if level = m.log.Warn; relationship.IsDecision(out.Result) {
				m.intake.Record(intake.ActionRefuse, td, out.Result, failure, 0)
			}
		}
		level("bundle from a peer refused; the stored one is kept", "trust_domain", td, "peer", home, "result", out.Result, "error", failure)
	} else {
		m.log.Info("bundle from a peer", "trust_domain", td, "peer", home, "result", out.Result, "took", m.now().Sub(began))
	}
	m.observations.Attempted(td, generation, m.now(), out.Err == nil, out.Result, failure)
	return received
}

func (r *receiver) attempt(ctx context.Context, home, td string, b basis, document []byte) (relationship.Version, intake.Outcome) {
	refuse := func(err error) (relationship.Version, intake.Outcome) {
		err = fmt.Errorf("refuse the bundle of %s from the peer %s: %w", td, home, err)
		return relationship.Version{}, intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
	}
	if most := b.Rel.Limits.DocumentBytes; most > 0 && int64(len(document)) > most {
		return refuse(fmt.Errorf("%w: it has %d bytes, and its relationship allows %d", bundle.ErrTooLarge, len(document), most))
	}
	next, _, err := bundle.Parse(b.Rel.TrustDomain, document)
	if err != nil {
		return refuse(err)
	}
	if err := b.Current.Accept(next); err != nil {
		if failed := r.manager.intake.CompareBundle(ctx, td, next, b.Origin()); failed != nil {
			return relationship.Version{}, intake.Outcome{
				Result: "not_stored", Err: fmt.Errorf("raise an alarm on what the peer %s sent of %s: %w", home, td, failed),
			}
		}
		return refuse(err)
	}
	v := relationship.Version{Digest: next.Digest()}
	v.Sequence, v.Ordered = next.Sequence()
	if b.Current != nil && bytes.Equal(b.Current.Row.GetDocument(), next.Marshal()) {
		return v, intake.Outcome{Result: relationship.ResultUnchanged}
	}
	if _, err := r.manager.intake.Keep(ctx, td, b.Basis, next); err != nil {
		err = fmt.Errorf("store the bundle of %s from the peer %s: %w", td, home, err)
		return relationship.Version{}, intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
	}
	return v, intake.Outcome{Result: relationship.ResultStored}
}

// ConfirmBundle counts a heartbeat that names the stored bundle as a success, often enough to keep the bundle fresh.
func (r *receiver) ConfirmBundle(td string) {
	m := r.manager
	e, ok := m.catalog.Get(td)
	if !ok || e.PeerHome() == "" {
		return
	}
	now := m.now()
	if r.confirmed.due(td, now, m.intake.Interval(e.Holding)/relationship.StaleAfter) {
		m.observations.Attempted(td, e.Rel.Generation, now, true, relationship.ResultConfirmed, "")
	}
}

// MissingStatements returns the sequence from which statements on a foreign bundle are missing.
func (r *receiver) MissingStatements(td string) (from uint64, missing bool) {
	return r.manager.intake.LacksStatements(td)
}

// ReceiveStatements checks statements as if the domain's endpoint had served them. If they are not accepted, the endpoint
// is queried for them.
func (r *receiver) ReceiveStatements(ctx context.Context, home string, m *ententev1.PeerStatements) (string, peer.Fault) {
	result, err := r.statements(ctx, home, m)
	fault := faultOf(result)
	if ctx.Err() != nil {
		return result, fault
	}
	r.manager.intake.StatementsTotal.WithLabelValues(result).Inc()
	if err != nil {
		text, level := "statements from a peer are not accepted now", r.manager.log.Debug
		switch {
		case result == intake.StatementsUnjudged:
			text = "checked statements were not written; they are checked again at the next refresh"
		case fault == peer.FaultPeer:
			text = "statements from a peer refused; its endpoint is queried"
		}
		if fault != peer.FaultUnclear && r.manager.streams.LogAllowed(home) {
			level = r.manager.log.Warn // the metric counts all
		}
		level(text, "trust_domain", m.GetTrustDomain(), "peer", home, "result", result, "error", relationship.Clip(err.Error()))
	}
	return result, fault
}

func (r *receiver) statements(ctx context.Context, home string, m *ententev1.PeerStatements) (result string, err error) {
	e, ok := r.manager.catalog.Get(m.GetTrustDomain())
	if !ok || e.PeerHome() != home {
		return relationship.ReasonNotWanted, relationship.ErrNotWanted
	}
	statements, err := statement.ParseList(e.Rel.TrustDomain, m.GetDocument())
	if err == nil && len(statements) == 0 {
		err = endpoint.ErrNoStatements
	}
	if err != nil {
		return relationship.ReasonOf(err), err
	}
	result, err = r.manager.intake.TakeStatements(ctx, m.GetTrustDomain(), statements)
	if err == nil && result != intake.StatementsTaken {
		err = fmt.Errorf("none of %d statements continues what is stored of %s", len(statements), m.GetTrustDomain())
	}
	return result, err
}

// faultOf decides whose fault the result of checking statements is. What depends on the message alone is the peer's fault.
// What depends on the bundle that is stored here may be this cluster's: a wrong bundle from another source, for example,
// makes a correct statement look forged.
func faultOf(result string) peer.Fault {
	switch result {
	case intake.StatementsTaken, intake.StatementsUnjudged:
		return peer.FaultNone
	case intake.StatementsEarly, relationship.ReasonNotWanted, relationship.AlarmSplitView, bundle.Reason(statement.ErrSignature):
		return peer.FaultUnclear
	}
	return peer.FaultPeer
}

// confirmations holds when the bundle of each domain was last confirmed. A peer cannot make it grow, because it holds only
// domains of relationships.
type confirmations struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// due reports whether a confirmation is due, and counts it as made. It is also due if the clock was set back.
func (c *confirmations) due(td string, now time.Time, every time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.last[td]); age >= 0 && age < every {
		return false
	}
	c.last[td] = now
	return true
}

func (c *confirmations) forget(td string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.last, td)
}
