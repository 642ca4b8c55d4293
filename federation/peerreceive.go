package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
)

// receive takes a bundle that a peer brought through the same rules and the same transaction as one that was fetched. It
// can run on any member.
func (m *Manager) receive(ctx context.Context, home, td string, document []byte) (relationship.Version, intake.Outcome) {
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
			// The relationship may be gone since; that peer or another may as well play with names. Nothing is written down.
			return relationship.Version{}, intake.Outcome{Result: relationship.ReasonNotWanted, Err: err}
		}
		if err != nil {
			out = intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
			break
		}
		generation, b.Source = b.Rel.Generation, "peer "+home
		if v, out = m.receiveOnce(ctx, home, td, b, document); !errors.Is(out.Err, relationship.ErrSuperseded) {
			break
		}
	}
	if ctx.Err() != nil {
		return v, out
	}
	took := m.now().Sub(began)
	m.metrics.received.WithLabelValues(out.Result).Inc()
	failure := ""
	if out.Err != nil {
		failure = relationship.Clip(out.Err.Error())
		level := m.log.Debug
		if m.peers.tells(home) {
			if level = m.log.Warn; relationship.IsDecision(out.Result) {
				m.intake.Record(intake.ActionRefuse, td, out.Result, failure, 0)
			}
		}
		level("bundle brought by a peer is refused; the stored one is kept", "trust_domain", td, "peer", home, "result", out.Result, "error", failure)
	} else {
		m.log.Info("bundle brought by a peer", "trust_domain", td, "peer", home, "result", out.Result, "took", took)
	}
	m.observations.Attempted(td, generation, m.now(), out.Err == nil, out.Result, failure)
	return v, out
}

func (m *Manager) receiveOnce(ctx context.Context, home, td string, b basis, document []byte) (relationship.Version, intake.Outcome) {
	refuse := func(err error) (relationship.Version, intake.Outcome) {
		return relationship.Version{}, intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
	}
	if most := b.Rel.Limits.DocumentBytes; most > 0 && int64(len(document)) > most {
		return refuse(fmt.Errorf("refuse the bundle of %s from the peer %s: %w: it has %d bytes, and its relationship allows %d", td, home, bundle.ErrTooLarge, len(document), most))
	}
	next, _, err := bundle.Parse(b.Rel.TrustDomain, document)
	if err != nil {
		return refuse(fmt.Errorf("refuse the bundle of %s from the peer %s: %w", td, home, err))
	}
	if err := b.Current.Accept(next); err != nil {
		if failed := m.intake.CompareBundle(ctx, td, next, b.Origin()); failed != nil {
			return relationship.Version{}, intake.Outcome{Result: "not_stored", Err: fmt.Errorf("raise an alarm on what the peer %s shows of %s: %w", home, td, failed)}
		}
		return refuse(fmt.Errorf("refuse the bundle of %s from the peer %s: %w", td, home, err))
	}
	v := relationship.Version{Digest: next.Digest()}
	v.Sequence, v.Ordered = next.Sequence()
	if b.Current != nil && bytes.Equal(b.Current.Row.GetDocument(), next.Marshal()) {
		return v, intake.Outcome{Result: relationship.ResultUnchanged}
	}
	if _, err := m.intake.Keep(ctx, td, b.Basis, next); err != nil {
		return refuse(fmt.Errorf("store the bundle of %s from the peer %s: %w", td, home, err))
	}
	return v, intake.Outcome{Result: relationship.ResultStored}
}

// confirm counts a heartbeat that names the stored bundle as a success, often enough to keep it fresh and not at each one.
func (m *Manager) confirm(td string) {
	e, ok := m.catalog.Get(td)
	if !ok || e.PeerHome() == "" {
		return
	}
	now := m.now()
	if !m.confirmations.due(td, now, m.intake.Interval(e.Holding)/relationship.StaleAfter) {
		return
	}
	m.observations.Attempted(td, e.Rel.Generation, now, true, relationship.ResultConfirmed, "")
}

// confirmations remembers when each domain's bundle was last confirmed. A hostile peer cannot make it grow: it holds domains of
// relationships only.
type confirmations struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// due reports whether one is due, which then counts as made. A clock that was set back makes it so.
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
