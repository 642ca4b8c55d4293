// Package fetch keeps the bundles of foreign trust domains up to date by polling their SPIFFE bundle endpoints.
//
// A [Poller] brings one relationship up to date: it tries the endpoints in turn, stores what is accepted, reads the
// signed statements that are missing, and the bundle map where the domain's cluster is a hub. A [Scheduler] gives each
// relationship that this member owns its turns. An owner is the member that [membership.Owner] computes from those
// alive, so ownership moves without a message. Two members can fetch one relationship at the same time, which is
// harmless: what is stored depends on the revisions that the fetch relied on.
//
// A refused document waits for the relationship's next turn: the refresh hint, within bounds, with a jitter of a tenth.
// After an outage of the endpoint the next attempt comes sooner.
// What a member takes over together with others is fetched one after the other, and then once more at a random time
// within the interval, so that the turns of thousands are spread evenly. A peer that does not answer promptly moves to
// the slow queue, where it delays no other peer.
//
// Nothing here removes a bundle. Start reading at [Poller.Refresh].
package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/internal/span"
	"github.com/ententehq/entente/raftstore"
)

const (
	// maxAttempts is how often a fetch is repeated at once because its basis changed in the meantime.
	maxAttempts = 3
	// maxRequested is how many fetches that operators request run at once on a member. More wait.
	maxRequested = 16
)

// Maps reads the bundle maps of hubs.
type Maps interface {
	// Refresh reads the map of a hub after its bundle. It does nothing for a relationship that is no hub. The error is
	// [relationship.ErrUnfinished] or nil; it reports all others itself.
	Refresh(ctx context.Context, hub string, w *Wait) error
	// Forget removes what is remembered of a hub that this member no longer fetches.
	Forget(hub string)
}

// Config has the dependencies of a [Poller]. All fields but Registerer are required.
type Config struct {
	Store        *raftstore.Store
	Intake       *intake.Intake
	Mirror       *mirror.Mirror
	Observations *observation.Section
	// Client configures the fetches. Its Bundles is not used: the bundle of the basis verifies each fetch.
	Client endpoint.ClientConfig
	// Route is the way to endpoints whose relationship names none.
	Route egress.Route
	// Folder has the bundles of relationships from files. If empty, this member has none.
	Folder     string
	Routes     *Routes
	Maps       Maps
	Log        hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Poller brings relationships up to date. It is safe for concurrent use, and runs on any member.
type Poller struct {
	config      Config
	log         hclog.Logger
	now         func() time.Time
	etags       *etags
	unstated    *unstated
	connections *endpoint.Connections
	requested   chan struct{}
	metrics     *metrics
}

// New returns a poller and registers its metrics. The caller closes it.
func New(c Config) (*Poller, error) {
	p := &Poller{
		config: c, log: c.Log, now: c.Now, etags: newETags(), unstated: newUnstated(),
		connections: endpoint.NewConnections(maxKept()), requested: make(chan struct{}, maxRequested),
	}
	var err error
	p.metrics, err = newMetrics(p.connections.Len, c.Registerer)
	return p, err
}

// Close closes the connections that are kept for further fetches.
func (p *Poller) Close() { p.connections.Close() }

// Forget removes what is remembered of a relationship that has ended.
func (p *Poller) Forget(name string) {
	p.etags.forget(name)
	p.config.Routes.forget(name)
	p.unstated.forget(name)
}

// disown removes what is remembered of a relationship that this member no longer fetches.
func (p *Poller) disown(name string) {
	p.config.Observations.Disowned(name)
	p.config.Observations.Disowned(name + relationship.MapSuffix)
	p.config.Maps.Forget(name)
	p.etags.forget(name)
	p.config.Routes.forget(name)
}

// RefreshRequested is [Poller.Refresh] for an operator. It waits while many of these run, and fails if ctx ends first.
func (p *Poller) RefreshRequested(ctx context.Context, name string) (intake.Outcome, error) {
	select {
	case p.requested <- struct{}{}:
		defer func() { <-p.requested }()
	case <-ctx.Done():
		return intake.Outcome{}, ctx.Err()
	}
	return p.Refresh(ctx, name), nil
}

// Refresh brings one relationship up to date now, and records the result.
func (p *Poller) Refresh(ctx context.Context, name string) intake.Outcome {
	return p.refresh(ctx, name, Requested())
}

// RefreshWithin is [Poller.Refresh] with a bound on how long it waits for the peer in all. If that is too short nothing
// is recorded, and the error is [relationship.ErrUnfinished]. If bound is 0, only the relationship's own bounds apply.
func (p *Poller) RefreshWithin(ctx context.Context, name string, bound time.Duration) intake.Outcome {
	return p.refresh(ctx, name, &Wait{bound: bound})
}

func (p *Poller) refresh(ctx context.Context, name string, w *Wait) (out intake.Outcome) {
	began := p.now()
	ctx, poll := span.Start(ctx, "poll", span.TrustDomain(name))
	defer func() {
		out.Waited = w.spent
		poll.SetAttributes(attribute.String("entente.result", out.Result))
		span.End(poll, out.Err)
	}()
	var generation uint64
	for range maxAttempts {
		b, err := p.config.Intake.BasisOf(p.config.Store.View(), name)
		if err != nil {
			out = intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
			break
		}
		generation = b.Rel.Generation
		if out.Result, out.Err = p.fetchAndKeep(ctx, name, b, w); out.Err != nil {
			out.Result = relationship.ReasonOf(out.Err)
		}
		if !errors.Is(out.Err, relationship.ErrSuperseded) {
			break
		}
	}
	took := p.now().Sub(began)
	if errors.Is(out.Err, relationship.ErrEnded) || errors.Is(out.Err, relationship.ErrUnfinished) || ctx.Err() != nil {
		p.log.Debug("fetch abandoned", "trust_domain", name, "result", out.Result, "took", took)
		return out
	}
	p.record(name, generation, out, took)
	if out.Err == nil {
		p.checkStatements(ctx, name, w)
		if err := p.config.Maps.Refresh(ctx, name, w); err != nil {
			// The next attempt reads the map again, with more time.
			out.Result, out.Err = relationship.ReasonOf(err), err
		}
	}
	return out
}

// record counts, logs and observes the result of a fetch.
func (p *Poller) record(name string, generation uint64, out intake.Outcome, took time.Duration) {
	p.metrics.fetched(out.Result, took)
	failure := ""
	if out.Err != nil {
		failure = out.Err.Error()
	}
	p.config.Observations.Attempted(name, generation, p.now(), out.Err == nil, out.Result, failure)
	switch {
	case out.Err != nil:
		p.log.Warn(
			"bundle not refreshed; the stored one is kept",
			"trust_domain",
			name,
			"result",
			out.Result,
			"took",
			took,
			"error",
			relationship.Clip(failure),
		)
	case out.Result == relationship.ResultStored:
		p.log.Info("bundle refreshed", "trust_domain", name, "result", out.Result, "took", took)
	default:
		p.log.Debug("bundle refreshed", "trust_domain", name, "result", out.Result, "took", took)
	}
}

// fetchAndKeep tries the endpoints in turn, until one of them serves what is accepted. It returns the failure of the
// endpoint that was tried first.
func (p *Poller) fetchAndKeep(ctx context.Context, name string, b intake.Basis, w *Wait) (string, error) {
	rel := b.Rel
	switch {
	case rel.Static:
		return "", relationship.ErrEnded // it was fetched before
	case rel.File != "":
		return p.readAndKeep(ctx, name, b)
	}
	var first error
	for n, i := range p.config.Routes.of(name, rel).order(len(rel.Endpoints), p.now()) {
		result, err := p.fetchFrom(ctx, name, b, rel.Endpoints[i], w)
		reason := relationship.ReasonOf(err)
		if errors.Is(err, relationship.ErrEnded) || errors.Is(err, relationship.ErrUnfinished) || ctx.Err() != nil ||
			(intake.Outcome{Result: reason}).Local() {
			return "", err // this does not concern the endpoint
		}
		a := observation.Attempt{At: p.now(), Result: result}
		if err != nil {
			a.Result, a.Error = reason, relationship.Clip(err.Error())
		}
		attempts := p.config.Routes.tried(name, rel, i, a)
		if len(rel.Endpoints) > 1 {
			p.config.Observations.Tried(name, rel.Generation, attempts)
		}
		if err == nil {
			return result, nil
		}
		if relationship.IsDecision(reason) {
			p.config.Intake.Record(intake.ActionRefuse, name, reason, a.Error, 0)
		}
		if n == 0 {
			first = err
		}
		if n+1 < len(rel.Endpoints) {
			p.metrics.failovers.WithLabelValues(reason).Inc()
			p.log.Warn("an endpoint failed; trying the relationship's next endpoint", "trust_domain", name,
				"url", rel.Endpoints[i].URL(), "result", reason, "error", a.Error)
		}
	}
	if len(rel.Endpoints) > 1 {
		return "", fmt.Errorf("none of %d endpoints: the first one: %w", len(rel.Endpoints), first)
	}
	return "", first
}

// fetchFrom fetches from one endpoint, decides, and stores what is new.
func (p *Poller) fetchFrom(
	ctx context.Context,
	name string,
	b intake.Basis,
	ep endpoint.Remote,
	w *Wait,
) (string, error) {
	b.Source = "endpoint " + ep.URL()
	fetched, err := p.fetch(ctx, name, b, ep, w)
	if err != nil {
		return "", relationship.WithRemedy(err, b.Row, b.Current != nil)
	}
	if fetched.NotModified {
		return relationship.ResultNotModified, nil
	}
	result, revision, err := p.keep(ctx, name, b, fetched.Bundle, fetched.Ignored)
	if err != nil {
		return "", err
	}
	p.etags.remember(name, etag{ep.URL(), b.Rel.Generation, revision, fetched.ETag})
	return result, nil
}

// keep decides on a bundle, and stores it if it is new. It returns the revision of the stored bundle.
func (p *Poller) keep(
	ctx context.Context, name string, b intake.Basis, next *bundle.Bundle, ignored []bundle.Ignored,
) (string, raftstore.Revision, error) {
	if len(ignored) > 0 {
		p.log.Debug("parts of a bundle have no effect", "trust_domain", name,
			"parts", bundle.CountIgnored(ignored), "first", relationship.Clip(fmt.Sprint(ignored[0])))
	}
	if err := b.Current.Accept(next); err != nil {
		// If the alarm cannot be written, the next fetch raises it again.
		_ = p.config.Intake.CompareBundle(ctx, name, next, b.Origin())
		from := strings.TrimPrefix(b.Source, "endpoint ")
		return "", 0, fmt.Errorf("refuse bundle of %s from %s: %w", name, from, err)
	}
	if b.Current != nil && bytes.Equal(b.Current.Row.GetDocument(), next.Marshal()) &&
		int(b.Current.Row.GetIgnoredKeys()) == next.LeftOut() {
		return relationship.ResultUnchanged, b.Revision, nil
	}
	revision, err := p.config.Intake.Keep(ctx, name, b, next)
	if err != nil {
		return "", 0, fmt.Errorf("store bundle of %s: %w", name, err)
	}
	return relationship.ResultStored, revision, nil
}
