package federation

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// attempts is how often a fetch is made again at once because what it relied on changed under way.
const attempts = 3

// basis is what a fetch relies on, of one state.
type basis struct {
	rel *relationship.Relationship
	row *statev1.Relationship
	// current is the stored bundle; nil: none.
	current  *relationship.Stored
	revision raftstore.Revision
	// trust is what verifies an https_spiffe endpoint; nil: there is nothing that does.
	trust         x509bundle.Source
	trustRevision raftstore.Revision
	// source is where the bundle that is being stored comes from, for the history; empty: the relationship's endpoint. reset says that
	// it counts whatever its sequence.
	source string
	reset  bool
	// wait counts for how long the peer is waited for; nil: it does not matter.
	wait *wait
}

// origin says in a few words where a bundle comes from.
func (b basis) origin() string {
	if b.source != "" {
		return b.source
	}
	return "endpoint " + b.rel.Endpoint.URL()
}

// sameAs reports whether nothing that counts has changed.
func (b basis) sameAs(o basis) bool {
	return b.rel.Generation == o.rel.Generation && b.revision == o.revision && b.trustRevision == o.trustRevision
}

// basisOf reads it. Read through a transaction, all of it is a precondition of the transaction.
func (m *Manager) basisOf(r raftstore.Reader, name string) (basis, error) {
	row, found, err := relationship.Relationships.Get(r, name)
	if err != nil {
		return basis{}, err
	}
	if !found || !relationship.InForce(row.Value) {
		return basis{}, relationship.ErrEnded
	}
	b := basis{row: row.Value}
	if b.rel, err = relationship.Parse(row.Value); err != nil {
		return basis{}, fmt.Errorf("stored relationship: %w", err)
	}
	held, found, err := relationship.ForeignBundles.Get(r, name)
	if err != nil {
		return basis{}, err
	}
	if found {
		b.current, b.revision = relationship.NewStored(held.Value), held.Revision
	}
	switch {
	case b.rel.Endpoint.Profile() != endpoint.HTTPSSPIFFE:
	case b.rel.Endpoint.SelfServing() && !found:
	case b.rel.Endpoint.SelfServing():
		b.trust, b.trustRevision = b.current, b.revision
	case b.rel.Serving != nil:
		b.trust = b.rel.Serving // the generation stands for it
	default:
		b.trust, b.trustRevision, err = m.servingBundle(r, b.rel.Endpoint.ID().TrustDomain().Name())
	}
	return b, err
}

// servingBundle returns the bundle of a domain that serves another's, or nil if there is none. The domain is hosted, or foreign
// with a relationship in force.
func (m *Manager) servingBundle(r raftstore.Reader, name string) (x509bundle.Source, raftstore.Revision, error) {
	d, err := m.config.Trust.Decide(r, name)
	if err != nil {
		return nil, 0, err
	}
	switch d.Origin {
	case trust.ByHosting:
	case trust.ByRelationship:
		if d.Status.State.Withheld() || !relationship.KindsOf(d.Relationship.Value).X509 {
			return nil, 0, nil
		}
	default: // a hub's attestation serves no other domain
		return nil, 0, nil
	}
	row, found, err := m.config.Trust.Stored(r, name, d)
	if err != nil || !found {
		return nil, 0, err
	}
	return relationship.NewStored(row.Value), row.Revision, nil
}

// outcome is what came of an attempt.
type outcome struct {
	// result is one of a bounded set of names.
	result string
	err    error
	// waited is for how long the peer was waited for.
	waited time.Duration
}

// ours reports whether it failed for a reason that is not the peer's.
func (o outcome) ours() bool {
	return o.result == "not_stored" || o.result == "not_audited" || o.result == "superseded"
}

// refresh brings one relationship up to date now, and records what came of it. It can run on any member, and several times at once.
func (m *Manager) refresh(ctx context.Context, name string) outcome {
	return m.refreshFor(ctx, name, &wait{byHand: true})
}

// refreshWithin is refresh, with a bound on how long the peer is waited for in all. Where that is too short nothing is recorded, and the
// error is errUnfinished. 0 is no bound beyond those of the relationship.
func (m *Manager) refreshWithin(ctx context.Context, name string, most time.Duration) outcome {
	return m.refreshFor(ctx, name, &wait{most: most})
}

func (m *Manager) refreshFor(ctx context.Context, name string, w *wait) (out outcome) {
	began := m.now()
	defer func() { out.waited = w.spent }()
	var generation uint64
	for range attempts {
		b, err := m.basisOf(m.config.Store.View(), name)
		if err != nil {
			out = outcome{result: relationship.ReasonOf(err), err: err}
			break
		}
		b.wait = w
		generation = b.rel.Generation
		out = m.attempt(ctx, name, b)
		if !errors.Is(out.err, relationship.ErrSuperseded) {
			break
		}
	}
	took := m.now().Sub(began)
	if errors.Is(out.err, relationship.ErrEnded) || errors.Is(out.err, relationship.ErrUnfinished) || ctx.Err() != nil {
		m.log.Debug("gave up a fetch", "trust_domain", name, "result", out.result, "took", took)
		return out
	}
	m.metrics.fetched(out.result, took)
	failure := ""
	if out.err != nil {
		failure = out.err.Error()
	}
	m.observations.Attempted(name, generation, m.now(), out.err == nil, out.result, failure)
	switch {
	case out.err != nil:
		m.log.Warn("bundle not refreshed; the stored one is kept", "trust_domain", name, "result", out.result, "took", took, "error", relationship.Clip(failure))
	case out.result == relationship.ResultStored:
		m.log.Info("bundle refreshed", "trust_domain", name, "result", out.result, "took", took)
	default:
		m.log.Debug("bundle refreshed", "trust_domain", name, "result", out.result, "took", took)
	}
	if out.err == nil {
		m.checkStatements(ctx, name, w)
		if err := m.refreshMap(ctx, name, w); err != nil {
			out.result, out.err = relationship.ReasonOf(err), err // the map is to be asked for again, with more time
		}
	}
	return out
}

// attempt fetches once, from the first endpoint that will do.
func (m *Manager) attempt(ctx context.Context, name string, b basis) outcome {
	result, err := m.fetchAndKeep(ctx, name, b)
	if err == nil {
		return outcome{result: result}
	}
	return outcome{result: relationship.ReasonOf(err), err: err}
}

// fetchAndKeep asks the endpoints in turn, until one of them serves what is accepted. What it returns is the failure of the one that was
// asked first.
func (m *Manager) fetchAndKeep(ctx context.Context, name string, b basis) (string, error) {
	rel := b.rel
	var first error
	for n, i := range m.routes.of(name, rel).order(len(rel.Endpoints), m.now()) {
		result, err := m.fetchFrom(ctx, name, b, rel.Endpoints[i])
		reason := relationship.ReasonOf(err)
		if errors.Is(err, relationship.ErrEnded) || errors.Is(err, relationship.ErrUnfinished) || ctx.Err() != nil || (outcome{result: reason}).ours() {
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
			m.record(actionRefuse, name, reason, a.Error, 0)
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
	b.source = "endpoint " + ep.URL()
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
	if err := b.current.Accept(next); err != nil {
		_ = m.compareShown(ctx, name, next, b.origin()) // an alarm that was not written is raised at the next fetch
		return "", fmt.Errorf("refuse bundle of %s from %s: %w", name, ep.URL(), err)
	}
	if b.current != nil && bytes.Equal(b.current.Row.GetDocument(), next.Marshal()) {
		m.etags.remember(name, etag{ep.URL(), b.rel.Generation, b.revision, fetched.ETag})
		return relationship.ResultUnchanged, nil
	}
	revision, err := m.keep(ctx, name, b, next)
	if err != nil {
		return "", fmt.Errorf("store bundle of %s: %w", name, err)
	}
	m.etags.remember(name, etag{ep.URL(), b.rel.Generation, revision, fetched.ETag})
	return relationship.ResultStored, nil
}

// keep stores a bundle that was accepted, if all that led to it still stands.
func (m *Manager) keep(ctx context.Context, name string, b basis, next *bundle.Bundle) (raftstore.Revision, error) {
	detail := describe(next)
	if err := m.config.Audit.Record(access.Event{
		Caller: taskName, Action: actionAccept, Object: name, Result: access.ResultBegun, Detail: detail,
	}); err != nil {
		return 0, fmt.Errorf("%w: %w", relationship.ErrAudit, err)
	}
	var raised []relationship.Alarm
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		now, err := m.basisOf(tx, name)
		if err != nil {
			return err
		}
		if !now.sameAs(b) {
			return relationship.ErrSuperseded
		}
		// The standing basis is the very one that Accept has seen; it is asked again, because here is where it counts.
		if err := now.current.Accept(next); err != nil {
			return err
		}
		now.source = b.source
		raised, err = m.put(tx, now, next, m.now())
		return err
	})
	if err != nil {
		m.record(actionAccept, name, access.ResultFailed, relationship.Clip(err.Error()), 0)
		return 0, err
	}
	m.record(actionAccept, name, access.ResultDone, detail, revision)
	m.announce(name, raised, revision)
	return revision, nil
}

// put writes a bundle, and the standing that it gives its relationship where that is another; and the alarm that it raises where hubs
// showed something else.
func (m *Manager) put(tx *raftstore.Tx, b basis, next *bundle.Bundle, now time.Time) ([]relationship.Alarm, error) {
	name := b.row.GetTrustDomain()
	standing, err := m.putBundle(tx, b, next, now)
	if err != nil {
		return nil, err
	}
	split, err := relationship.AgainstHubs(tx, name, statement.ViewOf(next, b.origin()))
	if err != nil {
		return nil, err
	}
	raised := relationship.Raise(b.row, split, timestamppb.New(now))
	if standing == b.rel.Standing && len(raised) == 0 {
		return nil, nil
	}
	b.row.Standing = standing.Row(now)
	return raised, relationship.Relationships.Put(tx, name, b.row)
}

// putBundle writes a bundle that was confirmed at now, and says how it stands.
func (m *Manager) putBundle(tx *raftstore.Tx, b basis, next *bundle.Bundle, now time.Time) (relationship.Standing, error) {
	changed := now
	current, err := b.current.Bundle()
	if err != nil {
		return relationship.Standing{}, err
	}
	if current != nil && current.SameKeys(next) && b.current.Row.GetChangeTime().IsValid() {
		changed = b.current.Row.GetChangeTime().AsTime() // another sequence or hint is no other content
	}
	if err := relationship.RecordVersion(tx, next, b.origin(), b.reset, now); err != nil {
		return relationship.Standing{}, err
	}
	row := next.Row(changed)
	row.RetrieveTime = timestamppb.New(now)
	standing := relationship.Judge(now, relationship.NewHolding(next, changed, tx.Revision()+1).Facts(b.rel, now, m.config.MinRefresh))
	return standing, relationship.ForeignBundles.Put(tx, next.TrustDomain().Name(), row)
}

// describe says what a bundle holds, for the audit log.
func describe(b *bundle.Bundle) string {
	digest := b.Digest()
	sequence := "no sequence"
	if n, ok := b.Sequence(); ok {
		sequence = fmt.Sprintf("sequence %d", n)
	}
	return fmt.Sprintf("%s, %d X.509 and %d JWT authorities, digest %s", sequence, len(b.X509Authorities()), len(b.JWTAuthorities()),
		hex.EncodeToString(digest[:]))
}
