package exchange

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/registry"
)

// How long imports outlive the stream that brought them. The default outlasts a rolling restart of the other cluster
// and a usual network outage.
const (
	DefaultImportTTL = 10 * time.Minute
	MinImportTTL     = 10 * time.Second
	MaxImportTTL     = 7 * 24 * time.Hour
)

// Config is what an [Exchange] needs. Store, Registry and Audit are required.
type Config struct {
	Store    *raftstore.Store
	Registry *registry.Registry
	// Audit records what the exchange does on its own: it stores imported instances, and ends exports and imports.
	Audit audit.Recorder
	// Agreements returns the agreements under which services are shared. If nil, there are none.
	Agreements Agreements
	// Leader is queried for the outcomes of exports. If nil, they are unknown.
	Leader Leader
	// ImportTTL is how long imported instances are offered without a stream that confirms them. If 0, it is
	// [DefaultImportTTL].
	ImportTTL time.Duration
	// LastContact returns when this member last had contact with the leader, or led with a majority. If nil, contact is
	// always recent.
	LastContact func() time.Time
	// Now is the clock; if nil, time.Now.
	Now func() time.Time
	// Logger and Registerer may be nil.
	Logger     hclog.Logger
	Registerer prometheus.Registerer
}

// Exchange holds the parts of this package for one member. Exports and Imports serve their share of
// ententev1.RoutingService.
type Exchange struct {
	Exports  *ExportServer
	Imports  *ImportServer
	Liveness *Liveness
	Outcomes *Outcomes

	store   *raftstore.Store
	syncs   *syncs
	sweeper *sweeper
	restore restore
}

// New returns the exchange of a member. Register its Liveness and Outcomes with the membership, and call Run.
func New(c Config) (*Exchange, error) {
	if c.Store == nil || c.Registry == nil || c.Audit == nil {
		return nil, errors.New("exchange: a store, a registry and an audit log are required")
	}
	if c.ImportTTL == 0 {
		c.ImportTTL = DefaultImportTTL
	}
	if c.Agreements == nil {
		c.Agreements = noAgreements{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.LastContact == nil {
		c.LastContact = c.Now
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	metrics, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of the exchange: %w", err)
	}
	sets := newExportedSets(c.Registry.Catalog, c.Agreements)
	x := &Exchange{
		store: c.Store, syncs: newSyncs(), restore: restore{c.Agreements}, Outcomes: newOutcomes(c),
		Imports: &ImportServer{store: c.Store, agreements: c.Agreements, now: c.Now},
	}
	x.syncs.parts = syncParts{
		store: c.Store, agreements: c.Agreements, sets: sets, outcomes: x.Outcomes, metrics: metrics,
		lastContact: c.LastContact, now: c.Now, log: c.Logger,
		writer: &importWriter{
			store: c.Store, registry: c.Registry, agreements: c.Agreements, audit: c.Audit, metrics: metrics,
			now: c.Now, log: c.Logger,
		},
	}
	x.Liveness = newLiveness(c, x.syncs)
	x.Exports = &ExportServer{
		store: c.Store, catalog: c.Registry.Catalog, agreements: c.Agreements, sets: sets, outcomes: x.Outcomes,
		now: c.Now,
	}
	x.sweeper = &sweeper{
		store: c.Store, collector: c.Registry.Collector, agreements: c.Agreements, audit: c.Audit, liveness: x.Liveness,
		metrics: metrics, ttl: c.ImportTTL, now: c.Now, log: c.Logger,
	}
	c.Store.Snapshots().Survive("routing", x.restore.keepEnded)
	return x, nil
}

// Run notifies streams of changes and, while this member leads, ends what is not shared any more. It returns when ctx
// ends.
func (x *Exchange) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return x.store.WhileLeading(ctx, x.sweeper.run) })
	g.Go(func() error { return x.syncs.follow(ctx) })
	return g.Wait()
}

// NewSync starts the service sync of a stream that has opened. Call its Run until the stream ends.
func (x *Exchange) NewSync(s Stream) *Sync { return x.syncs.open(s) }

type metrics struct {
	imported, exported *prometheus.CounterVec
	expired            prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		imported: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_routing_import_sets_total",
			Help: "Sets of instances received from other clusters, by result.",
		}, []string{"result"}),
		exported: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_routing_export_sets_total",
			Help: "Sets of instances that this member sent to other clusters, by step: sent, acknowledged or refused.",
		}, []string{"result"}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_routing_imports_expired_total",
			Help: "Trust domains whose imports expired while this member was the leader.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.imported, m.exported, m.expired} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
