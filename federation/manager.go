package federation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/fetch"
	"github.com/ententehq/entente/federation/hub"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/invitation"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/receiver"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/trust"
)

// Config has the dependencies of a [Manager]. All fields are required, except those with a default.
type Config struct {
	Store *raftstore.Store
	// Client configures fetches; every zero field has its default. Its Bundles is not used: the bundle of the basis
	// verifies each fetch.
	Client endpoint.ClientConfig
	// Route is the way to other clusters whose relationship names none.
	Route egress.Route
	// Folder has the bundles of relationships from files. If empty, this member has none.
	Folder string
	// Leader queries the leader's memory. [membership.Manager] implements it.
	Leader Leader
	// Trust decides which domains are hosted and foreign, inside of transactions too, and supplies the hosted bundles
	// with their statements.
	Trust *trust.Index
	// Peers is the transport to other clusters. Without its Dial this member only accepts streams.
	Peers peer.Transport
	// Invitations is the transport to clusters that are not known yet. Without its Members and Dial there are no
	// invitations.
	Invitations invitation.Transport
	// Audit records decisions on bundles.
	Audit audit.Recorder
	// Depends returns what other rooms lose with the trust in a domain, for a dry run. If nil, nothing.
	Depends func(r raftstore.Reader, td spiffeid.TrustDomain) ([]*ententev1.Effect, error)
	// MinRefresh is the shortest interval at which a peer is polled, at least [relationship.LowestMinRefresh]. The
	// default is [relationship.DefaultMinRefresh].
	MinRefresh time.Duration
	// Logger defaults to a null logger, Registerer to none, Now to time.Now.
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Leader queries a section of the leader's memory, from any goroutine. It fails while there is no leader.
type Leader interface {
	Query(ctx context.Context, section string, query []byte) ([]byte, error)
}

// Manager keeps the bundles of all relationships up to date, together with the managers of the other members.
type Manager struct {
	config       Config
	member       string
	log          hclog.Logger
	now          func() time.Time
	catalog      *mirror.Mirror
	freshness    *freshness
	observations *observation.Section
	intake       *intake.Intake
	routes       *fetch.Routes
	poller       *fetch.Poller
	scheduler    *fetch.Scheduler
	streams      *peer.Streams
	receiver     *receiver.Receiver
	publisher    *hub.Publisher
	importer     *hub.Importer
	reconciler   *hub.Reconciler
	agreements   *invitation.Agreements
	display      *display
	// alive reads the members that share the work, from aliveRows.
	alive     func(r raftstore.Reader) ([]string, error)
	aliveRows raftstore.Prefix
}

// New returns a Manager. Register [Manager.Section] with the membership before [Manager.Run].
func New(c Config) (*Manager, error) {
	switch {
	case c.Store == nil, c.Leader == nil, c.Trust == nil, c.Audit == nil:
		return nil, errors.New("federation: the configuration lacks a part")
	case c.MinRefresh == 0:
		c.MinRefresh = relationship.DefaultMinRefresh
	case c.MinRefresh < relationship.LowestMinRefresh || c.MinRefresh > relationship.MaxRefresh:
		return nil, fmt.Errorf(
			"min_refresh is %s; it must lie between %s and %s",
			c.MinRefresh,
			relationship.LowestMinRefresh,
			relationship.MaxRefresh,
		)
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	m := newState(c.Store.MemberID(), c.Now)
	m.config, m.log = c, c.Logger
	m.alive, m.aliveRows = membership.Alive, membership.AlivePrefix()
	var err error
	if m.intake, err = intake.New(intake.Config{
		Store: c.Store, Trust: c.Trust, Audit: c.Audit, MinRefresh: c.MinRefresh,
		Log: c.Logger, Registerer: c.Registerer, Now: c.Now,
	}); err != nil {
		return nil, fmt.Errorf("register the metrics of federation: %w", err)
	}
	if m.receiver, err = receiver.New(receiver.Config{
		Store: c.Store, Intake: m.intake, Mirror: m.catalog, Observations: m.observations,
		Log: c.Logger, Registerer: c.Registerer,
		Now: c.Now, LogAllowed: m.logAllowed,
	}); err != nil {
		return nil, fmt.Errorf("register the metrics of federation: %w", err)
	}
	h := m.hubConfig()
	m.publisher, m.reconciler = hub.NewPublisher(h), hub.NewReconciler(h)
	if m.importer, err = hub.NewImporter(h); err != nil {
		return nil, fmt.Errorf("register the metrics of federation: %w", err)
	}
	if m.poller, err = fetch.New(fetch.Config{
		Store: c.Store, Intake: m.intake, Mirror: m.catalog, Observations: m.observations,
		Client: c.Client, Route: c.Route, Folder: c.Folder, Routes: m.routes,
		Maps: m.importer, Log: c.Logger, Registerer: c.Registerer, Now: c.Now,
	}); err != nil {
		return nil, fmt.Errorf("register the metrics of federation: %w", err)
	}
	if m.agreements, err = invitation.New(invitation.Config{
		Transport: c.Invitations, Store: c.Store, Trust: c.Trust, Intake: m.intake, Mirror: m.catalog, Audit: c.Audit,
		Home:     c.Peers.Home.Name(),
		Alive:    func(r raftstore.Reader) ([]string, error) { return m.alive(r) },
		Streamed: func(home, name string) bool { return m.streams.Covers(home, name) },
		Show: func(ctx context.Context, view *raftstore.View, name string) (*ententev1.Relationship, error) {
			return m.display.show(ctx, view, name)
		},
		Log: c.Logger, Registerer: c.Registerer, Now: c.Now,
	}); err != nil {
		return nil, fmt.Errorf("register the metrics of federation: %w", err)
	}
	if c.Registerer != nil {
		if err := c.Registerer.Register(&bundleCollector{manager: m}); err != nil {
			return nil, fmt.Errorf("register the metrics of federation: %w", err)
		}
	}
	if m.streams, err = peer.New(m.peerConfig()); err != nil {
		return nil, fmt.Errorf("federation: %w", err)
	}
	m.freshness = &freshness{
		store: c.Store, mirror: m.catalog, observations: m.observations, hubs: m.reconciler, minRefresh: c.MinRefresh,
		log: c.Logger, now: c.Now, changed: feed.NewSet[string](),
	}
	m.scheduler = fetch.NewScheduler(m.poller, m.member, m.streams)
	m.display = &display{
		trust: c.Trust.Sources, leader: c.Leader, catalog: m.catalog, observations: m.observations, intake: m.intake,
		importer: m.importer, streams: m.streams, log: c.Logger, now: c.Now,
		alive: func(r raftstore.Reader) ([]string, error) { return m.alive(r) },
	}
	c.Store.Snapshots().Survive("federation", surviveRestore)
	c.Store.Snapshots().CountAsEmpty(invitation.Founded)
	return m, nil
}

// newState returns a Manager with empty in-memory caches and no store, network or metrics.
func newState(member string, now func() time.Time) *Manager {
	in, _ := intake.New(intake.Config{Log: hclog.NewNullLogger(), Now: now}) // registers no metrics, and so cannot fail
	m := &Manager{
		intake: in, member: member, now: now, log: hclog.NewNullLogger(),
		catalog: mirror.New(), observations: observation.New(now),
		routes: fetch.NewRoutes(),
	}
	h := hub.Config{Mirror: m.catalog, Observations: m.observations, Intake: in, Log: m.log, Now: now}
	m.reconciler = hub.NewReconciler(h)
	m.importer, _ = hub.NewImporter(h) // as above
	m.freshness = &freshness{
		mirror: m.catalog, observations: m.observations, hubs: m.reconciler, log: m.log, now: now,
		minRefresh: relationship.DefaultMinRefresh, changed: feed.NewSet[string](),
	}
	return m
}

// Section returns the observations, which are reported with heartbeats under [observation.Name].
func (m *Manager) Section() *observation.Section { return m.observations }

// Streams returns the streams to other clusters. They are reported with the heartbeats under the name [peer.Section].
func (m *Manager) Streams() *peer.Streams { return m.streams }

// peerConfig returns the configuration of the streams.
func (m *Manager) peerConfig() peer.Config {
	c := m.config
	peers := c.Peers
	peers.Route = c.Route
	return peer.Config{
		Transport: peers, Store: c.Store, Logger: c.Logger, Registerer: c.Registerer, Now: c.Now, Leader: c.Leader,
		Trust:  c.Trust,
		PlanOf: m.catalog.PlanOf, Homes: m.catalog.Homes, Receiver: m.receiver, Hub: hubs{m.publisher, m.importer},
		Alive:   func() ([]string, error) { return m.alive(c.Store.View()) },
		Changed: func(names []string) { m.scheduler.Changed(names...) }, Ended: m.agreements.TriggerHome,
		Unreadable: m.unreadable,
	}
}

// hubs implements [peer.Hub].
type hubs struct {
	*hub.Publisher
	*hub.Importer
}

// hubConfig returns the configuration of both sides of hubs.
func (m *Manager) hubConfig() hub.Config {
	c := m.config
	return hub.Config{
		Store: c.Store, Home: c.Peers.Home.Name(), Mirror: m.catalog, Trust: c.Trust,
		Intake: m.intake, Observations: m.observations,
		Audit: c.Audit, Client: c.Client, Route: c.Route, Unreadable: m.unreadable, Log: c.Logger,
		Registerer: c.Registerer, Now: c.Now,
		Endpoint: func(name string, rel *relationship.Relationship) endpoint.Remote {
			return m.routes.Endpoint(name, rel, c.Now())
		},
		Covers:     func(home, name string) bool { return m.streams.Covers(home, name) },
		LogAllowed: m.logAllowed, MapChanged: func() { m.streams.MapChanged() },
	}
}

// logAllowed is [peer.Streams.LogAllowed] of the streams, which are built last.
func (m *Manager) logAllowed(home string) bool { return m.streams.LogAllowed(home) }

// Run fetches what this member owns, keeps the streams, and keeps validity true while this member leads. It returns
// nil after ctx ends and everything it started has ended, or the error that makes it impossible to go on.
func (m *Manager) Run(ctx context.Context) error {
	defer m.poller.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.followTables(ctx) })
	group.Go(func() error { return m.followMembers(ctx) })
	group.Go(func() error { return m.scheduler.Run(ctx) })
	group.Go(func() error { return m.streams.Run(ctx) })
	group.Go(func() error { return m.agreements.Run(ctx) })
	group.Go(func() error { return m.config.Store.WhileLeading(ctx, m.freshness.run) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("federation: %w", err)
	}
	return nil
}

// followTables feeds the mirror and the loops that depend on it, change by change.
func (m *Manager) followTables(ctx context.Context) error {
	over := []raftstore.Prefix{
		relationship.Relationships.Prefix(""),
		relationship.ForeignBundles.Prefix(""),
		relationship.HubBundles.Prefix(""),
	}
	return feed.Batches(ctx, m.config.Store, over, m.load, m.apply)
}

// load replaces what the member keeps in memory by the present state.
func (m *Manager) load(view *raftstore.View) error {
	if err := m.catalog.Load(view, m.unreadable); err != nil {
		return err
	}
	m.publisher.UpdateAll(view)
	m.importer.ForgetAll()
	m.scheduler.ChangedAll()
	m.freshness.changed.AddAll()
	m.streams.PlanAll()
	return nil
}

// apply applies the changes of one revision to what the member keeps in memory.
func (m *Manager) apply(view *raftstore.View, batch raftstore.Batch) error {
	names, homes := m.catalog.Apply(batch, m.unreadable)
	for _, name := range names {
		if _, ok := m.catalog.Get(name); !ok {
			m.poller.Forget(name)
			m.receiver.Forget(name)
			m.observations.Ended(name)
		}
	}
	m.publisher.Update(view, names)
	m.scheduler.Changed(names...)
	m.freshness.changed.Add(names...)
	m.streams.Plan(homes...)
	return nil
}

// followMembers passes the members that are alive to those who share the work.
func (m *Manager) followMembers(ctx context.Context) error {
	return feed.Latest(ctx, m.config.Store, []raftstore.Prefix{m.aliveRows}, func(v *raftstore.View) error {
		members, err := m.alive(v)
		if err != nil {
			return fmt.Errorf("read who is alive: %w", err)
		}
		m.scheduler.SetMembers(members)
		m.streams.SetMembers(members)
		return nil
	})
}

// unreadable logs a row that this version cannot read. Its relationship is left alone; the others go on.
func (m *Manager) unreadable(err error) {
	m.log.Error(
		"a row was left out; it may have been written by a later version: bring this member to the cluster's version",
		"error",
		err,
	)
}

// Agreements returns the agreements with other clusters. Its RPC methods are part of the [Service].
func (m *Manager) Agreements() *invitation.Agreements { return m.agreements }
