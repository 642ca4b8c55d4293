package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/authority"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/node/backup"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/datadir"
	"github.com/ententehq/entente/node/debug"
	"github.com/ententehq/entente/node/lifecycle"
	"github.com/ententehq/entente/node/operations"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/node/process"
	"github.com/ententehq/entente/node/recovery"
	"github.com/ententehq/entente/node/supervisor"
	"github.com/ententehq/entente/node/tracing"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/registration"
	"github.com/ententehq/entente/routing"
	"github.com/ententehq/entente/routing/xds"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/bundleapi"
	"github.com/ententehq/entente/trust/publisher"
	"github.com/ententehq/entente/vaultca"
	"github.com/ententehq/entente/vaultca/transit"
)

// member is one member: its rooms, built and connected. Each field is set by one function, which sits in the file of
// its room; build calls them in order. Only the store works after build; start runs the rest.
type member struct {
	cfg      *config.Config
	log      hclog.Logger
	tail     *debug.Tail
	life     *lifecycle.Lifecycle
	registry *prometheus.Registry

	dir        *datadir.Folder
	audit      *audit.Log
	operations *operations.Server
	supervisor *supervisor.Supervisor
	identity   *memberid.Identity
	directory  *directory.Directory
	port       *port.Port
	refusals   refusals
	traces     *tracing.Exporter // nil if traces are off
	store      *raftstore.Store
	members    *membership.Manager
	guard      *access.Guard
	trust      *trust.Index
	vault      *vaultca.Upstream // nil if the upstream is self-signed
	transit    *transit.Store    // nil if the signing keys are not in Vault
	disk       *diskKeys         // nil if the signing keys are not on disk
	authority  *authority.Manager
	federation *federation.Manager
	seen       *recovery.Seen
	routing    *routing.Manager
	xds        *xds.Cache
	handler    *endpoint.Handler
	web        *webcert.CertificateFiles // nil if the endpoint has no certificate from files
	publisher  *publisher.Publisher
	bundles    *bundleapi.Service
	// authorMay decides whether what a caller wrote still counts.
	authorMay func(raftstore.Reader, string, string, proto.Message, ...grant.Grant) error
	// registration has the agents and the entries.
	registration *registration.Room
	snapshots    *backup.Schedule // nil if the member saves none by itself
	// serving is set once the API serves callers on the port.
	serving atomic.Bool
	// removed is true once this member stops because it was removed.
	removed bool
}

// build makes the rooms, from below. If it returns an error, it has closed the store, and m.life closes the rest.
func (m *member) build() error {
	m.registry = prometheus.NewRegistry()
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.operations = operations.New(m.registry, m.log.Named("operations"))
	m.supervisor = supervisor.New(supervisor.Config{Status: m.status, Alive: m.alive, Log: m.log.Named("supervisor")})
	for _, step := range []func(*member) error{
		openTraces, openFiles, openPort, openStore, buildMembership, buildAccess, buildAuthority, buildFederation,
		buildRouting, buildRegistration, buildEndpoint, buildSnapshots,
	} {
		if err := step(m); err != nil {
			if m.store != nil {
				err = errors.Join(err, m.store.Close())
			}
			return err
		}
	}
	return nil
}

// start brings the member up, from below. If it returns an error, the caller stops what it has started.
func (m *member) start(ctx context.Context, opts Options) error {
	if err := m.build(); err != nil {
		return err
	}
	m.restoreSVIDs()
	m.life.Start("collector", process.PaceCollector)
	m.life.Start("memory limit", process.BoundMemory)
	m.life.Start("supervisor", m.supervisor.Run)
	m.life.Start("refused connections", m.refusals.record(m.audit))
	m.life.Start("port", m.port.Run)
	m.life.OnStop("store", m.store.Close) // before the port, whose connections it uses
	if !m.store.HasState() && !opts.Bootstrap && m.cfg.Join == nil {
		return fmt.Errorf("start member %s in %s: %w", m.cfg.Member.ID, m.cfg.Member.DataDir, errNoCluster)
	}
	if err := serveOperations(m); err != nil {
		return err
	}
	m.life.OnStop("notice of removal", func() error { return m.awaitNotice(ctx) })
	m.operations.SetReady(startingChecks(m))
	endStarting, err := answerStarting(m)
	if err != nil {
		return err
	}
	serveMembers(m)
	endpoint, err := openEndpoint(m)
	if err != nil {
		return err
	}
	m.life.Start("bundle endpoint", endpoint.Run)
	if m.store.HasState() {
		m.openKeys()
	}
	if err := await(ctx, m, m.store.Serving().AwaitLoaded); err != nil {
		return err
	}
	m.life.Start("signals", followSignals(m, opts.Reload))
	m.supervisor.Ready() // what follows can wait for other members
	m.life.Start("membership", m.members.Run)
	if err := enterCluster(ctx, m, opts.Bootstrap); err != nil {
		return err
	}
	if err := await(ctx, m, m.store.Serving().Await); err != nil {
		return err
	}
	if err := await(ctx, m, m.completeRecovery); err != nil {
		return err
	}
	if !m.store.HasState() {
		m.openKeys()
	}
	for _, room := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"authority", m.authority.Run},
		{"federation", m.federation.Run},
		{"routing", m.routing.Run},
		{"xds", m.xds.Run},
		{"registration", m.registration.Run},
		{"bundle watches", m.bundles.Run},
		{"access", m.guard.Run},
		{"record of changes", m.copier().Run},
		{"versions that peers have seen", m.seen.Run},
		{"recheck of callers", recheckCallers(m)},
		{"limits of callers", reclassifyCallers(m)},
		{"publisher", m.publisher.Run},
		{"snapshots", m.saveSnapshots},
	} {
		m.life.Start(room.name, room.run)
	}
	m.life.OnStop("lead", func() error { return transferLeadership(m) })
	m.serving.Store(true)
	if err := endStarting(); err != nil {
		return err
	}
	if err := serveCallers(m); err != nil {
		return err
	}
	m.life.OnStop("peer streams", func() error { m.federation.Streams().Drain(); return nil })
	m.operations.SetReady(readiness(m))
	m.operations.SetReadyToWrite(readinessToWrite(m))
	return nil
}
