package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// attempts is how often a fetch is made again at once because what it relied on changed under way.
const attempts = 3

// basis is what a fetch relies on, and for how long it may wait for the peer.
type basis struct {
	intake.Basis
	// wait counts for how long the peer is waited for. If nil, that is neither counted nor bounded.
	wait *wait
}

func (m *Manager) basisOf(r raftstore.Reader, name string) (basis, error) {
	b, err := m.intake.BasisOf(r, name)
	return basis{Basis: b}, err
}

// refresh brings one relationship up to date now, and records what came of it. It can run on any member, and several times at once.
func (m *Manager) refresh(ctx context.Context, name string) intake.Outcome {
	return m.refreshFor(ctx, name, &wait{byHand: true})
}

// refreshWithin is refresh, with a bound on how long the peer is waited for in all. Where that is too short nothing is recorded, and the
// error is errUnfinished. 0 is no bound beyond those of the relationship.
func (m *Manager) refreshWithin(ctx context.Context, name string, most time.Duration) intake.Outcome {
	return m.refreshFor(ctx, name, &wait{most: most})
}

func (m *Manager) refreshFor(ctx context.Context, name string, w *wait) (out intake.Outcome) {
	began := m.now()
	defer func() { out.Waited = w.spent }()
	var generation uint64
	for range attempts {
		b, err := m.basisOf(m.config.Store.View(), name)
		if err != nil {
			out = intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
			break
		}
		b.wait = w
		generation = b.Rel.Generation
		out = m.attempt(ctx, name, b)
		if !errors.Is(out.Err, relationship.ErrSuperseded) {
			break
		}
	}
	took := m.now().Sub(began)
	if errors.Is(out.Err, relationship.ErrEnded) || errors.Is(out.Err, relationship.ErrUnfinished) || ctx.Err() != nil {
		m.log.Debug("gave up a fetch", "trust_domain", name, "result", out.Result, "took", took)
		return out
	}
	m.metrics.fetched(out.Result, took)
	failure := ""
	if out.Err != nil {
		failure = out.Err.Error()
	}
	m.observations.Attempted(name, generation, m.now(), out.Err == nil, out.Result, failure)
	switch {
	case out.Err != nil:
		m.log.Warn("bundle not refreshed; the stored one is kept", "trust_domain", name, "result", out.Result, "took", took, "error", relationship.Clip(failure))
	case out.Result == relationship.ResultStored:
		m.log.Info("bundle refreshed", "trust_domain", name, "result", out.Result, "took", took)
	default:
		m.log.Debug("bundle refreshed", "trust_domain", name, "result", out.Result, "took", took)
	}
	if out.Err == nil {
		m.checkStatements(ctx, name, w)
		if err := m.refreshMap(ctx, name, w); err != nil {
			out.Result, out.Err = relationship.ReasonOf(err), err // the map is to be asked for again, with more time
		}
	}
	return out
}

// attempt fetches once, from the first endpoint that will do.
func (m *Manager) attempt(ctx context.Context, name string, b basis) intake.Outcome {
	result, err := m.fetchAndKeep(ctx, name, b)
	if err == nil {
		return intake.Outcome{Result: result}
	}
	return intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
}

// fetchAndKeep asks the endpoints in turn, until one of them serves what is accepted. What it returns is the failure of the one that was
// asked first.
func (m *Manager) fetchAndKeep(ctx context.Context, name string, b basis) (string, error) {
	rel := b.Rel
	var first error
	for n, i := range m.routes.of(name, rel).order(len(rel.Endpoints), m.now()) {
		result, err := m.fetchFrom(ctx, name, b, rel.Endpoints[i])
		reason := relationship.ReasonOf(err)
		if errors.Is(err, relationship.ErrEnded) || errors.Is(err, relationship.ErrUnfinished) || ctx.Err() != nil || (intake.Outcome{Result: reason}).Local() {
			return "", err // says nothing of the endpoint
		}
		a := observation.Attempt{At: m.now(), Result: result}
		if err != nil {
			a.Result, a.Error = reason, relationship.Clip(err.Error())
		}
		attempts := m.routes.tried(name, rel, i, a)
		if len(rel.Endpoints) > 1 {
			m.observations.Tried(name, rel.Generation, attempts)
		}
		if err == nil {
			return result, nil
		}
		if relationship.IsDecision(reason) {
			m.intake.Record(intake.ActionRefuse, name, reason, a.Error, 0)
		}
		if n == 0 {
			first = err
		}
		if n+1 < len(rel.Endpoints) {
			m.metrics.passedOver.WithLabelValues(reason).Inc()
			m.log.Warn("an endpoint was passed over; the relationship's next one is asked", "trust_domain", name, "url", rel.Endpoints[i].URL(),
				"result", reason, "error", a.Error)
		}
	}
	if len(rel.Endpoints) > 1 {
		return "", fmt.Errorf("none of %d endpoints: the first that was asked: %w", len(rel.Endpoints), first)
	}
	return "", first
}

// fetchFrom asks one endpoint, decides, and stores what is new.
func (m *Manager) fetchFrom(ctx context.Context, name string, b basis, ep endpoint.Remote) (string, error) {
	b.Source = "endpoint " + ep.URL()
	fetched, err := m.fetch(ctx, name, b, ep)
	if err != nil {
		return "", err
	}
	if fetched.NotModified {
		return relationship.ResultNotModified, nil
	}
	next := fetched.Bundle
	if len(fetched.Ignored) > 0 {
		m.log.Debug("parts of a bundle have no effect", "trust_domain", name, "parts", bundle.CountIgnored(fetched.Ignored), "first", relationship.Clip(fmt.Sprint(fetched.Ignored[0])))
	}
	if err := b.Current.Accept(next); err != nil {
		_ = m.intake.CompareBundle(ctx, name, next, b.Origin()) // an alarm that was not written is raised at the next fetch
		return "", fmt.Errorf("refuse bundle of %s from %s: %w", name, ep.URL(), err)
	}
	if b.Current != nil && bytes.Equal(b.Current.Row.GetDocument(), next.Marshal()) {
		m.etags.remember(name, etag{ep.URL(), b.Rel.Generation, b.Revision, fetched.ETag})
		return relationship.ResultUnchanged, nil
	}
	revision, err := m.intake.Keep(ctx, name, b.Basis, next)
	if err != nil {
		return "", fmt.Errorf("store bundle of %s: %w", name, err)
	}
	m.etags.remember(name, etag{ep.URL(), b.Rel.Generation, revision, fetched.ETag})
	return relationship.ResultStored, nil
}
