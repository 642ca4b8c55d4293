package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/registry/preserve"
)

// Config is what a [Registry] needs. Store and Audit are required.
type Config struct {
	Store *raftstore.Store
	// Audit records what the registry does on its own, which is to end leases, and the changes of health that holders
	// of leases report.
	Audit audit.Recorder
	// Scope returns which trust domains the caller of a query sees. If nil, it is [access.ScopeFrom].
	Scope func(context.Context) access.Scope
	// LastContact returns when this member last had contact with the leader, or led with a majority. A member without
	// recent contact takes no renewals, because it could not pass them on. If nil, contact is always recent.
	LastContact func() time.Time
	// SelfPreservation is the part of the leased instances of a service above which they stay when they would be
	// removed within a minute. If 0, it is [preserve.Default].
	SelfPreservation preserve.Threshold
	// Now is the clock; if nil, time.Now.
	Now func() time.Time
	// Logger and Registerer may be nil.
	Logger     hclog.Logger
	Registerer prometheus.Registerer
}

// Registry holds the parts of this package for one member. The exported parts serve their share of
// ententev1.RoutingService.
type Registry struct {
	Catalog   *Catalog
	Tracker   *Tracker
	Collector *Collector
	Registrar *Registrar
	Replacer  *Replacer
	Leases    *LeaseKeeper

	sweeper *sweeper
	store   *raftstore.Store
}

// New returns the registry of a member. Register its Tracker with the membership, and call Run.
func New(c Config) (*Registry, error) {
	if c.Store == nil || c.Audit == nil {
		return nil, errors.New("registry: a store and an audit log are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Scope == nil {
		c.Scope = access.ScopeFrom
	}
	if c.LastContact == nil {
		c.LastContact = c.Now
	}
	if c.SelfPreservation == 0 {
		c.SelfPreservation = preserve.Default
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	r := &Registry{store: c.Store, Catalog: newCatalog(c.Now), Collector: newCollector(c), Tracker: newTracker(c)}
	metrics, err := newMetrics(c.Registerer, c.Store, r.Catalog)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of the registry: %w", err)
	}
	r.Registrar = &Registrar{store: c.Store, catalog: r.Catalog, scope: c.Scope, now: c.Now}
	r.Replacer = newReplacer(c, r.Catalog, r.Collector)
	r.Leases = &LeaseKeeper{
		store: c.Store, audit: c.Audit, scope: c.Scope, tracker: r.Tracker, collector: r.Collector, metrics: metrics,
		lastContact: c.LastContact, now: c.Now, log: c.Logger,
	}
	r.sweeper = &sweeper{
		store: c.Store, audit: c.Audit, tracker: r.Tracker, collector: r.Collector, metrics: metrics,
		now: c.Now, log: c.Logger, catalog: r.Catalog, threshold: c.SelfPreservation,
	}
	return r, nil
}

// Run deletes replaced generations and, while this member leads, ends the leases that are not renewed. It returns when
// ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.store.WhileLeading(ctx, r.sweeper.run) })
	g.Go(func() error { return r.Collector.run(ctx) })
	return g.Wait()
}

// Read opens a view with the consistency of a request. If the request has none, linearizable decides.
func Read(
	ctx context.Context,
	s *raftstore.Store,
	o *ententev1.ReadOptions,
	linearizable bool,
) (*raftstore.View, error) {
	switch o.GetConsistency() {
	case ententev1.Consistency_CONSISTENCY_UNSPECIFIED:
	case ententev1.Consistency_CONSISTENCY_STALE:
		linearizable = false
	case ententev1.Consistency_CONSISTENCY_LINEARIZABLE:
		linearizable = true
	default:
		return nil, invalid(apierror.InField("read.consistency",
			fmt.Errorf("consistency %d is not known; stale and linearizable are", int32(o.GetConsistency()))))
	}
	view, err := s.Read(ctx, raftstore.ReadOptions{
		Linearizable: linearizable, MinRevision: raftstore.Revision(o.GetMinRevision()),
	})
	return view, raftstore.StatusError(err)
}

// invalid returns the status for a request that does not parse.
func invalid(err error) error { return apierror.Invalid(err) }
