package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/lifecycle"
	"github.com/ententehq/entente/node/operations"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/routing"
)

// Version is that of the software; the build sets it.
var Version = "dev"

// Options are what the command line adds to the configuration.
type Options struct {
	// Bootstrap forms a new cluster of this member. It has no effect on a member that belongs to a cluster already.
	Bootstrap bool
	// LogOutput takes the log; nil: standard error.
	LogOutput io.Writer
	// Started, where it is given, is called once the member has started and can be asked through its admin socket.
	Started func()
}

// SocketName is the admin socket's name in the data folder.
const SocketName = "admin.sock"

// errNoCluster is for an empty data folder without a word on what to do about it.
var errNoCluster = errors.New("the data folder is empty: start with --bootstrap to form a new cluster, or add a join block with addresses and a token from 'entente cluster join-token'")

// Run is the life of a member, from its start until ctx ends or it cannot go on. It returns nil after an orderly end.
func Run(ctx context.Context, cfg *config.Config, opts Options) error {
	if opts.LogOutput == nil {
		opts.LogOutput = os.Stderr
	}
	log := hclog.New(&hclog.LoggerOptions{
		Name: "entente", Level: hclog.LevelFromString(cfg.Telemetry.LogLevel), Output: opts.LogOutput,
		JSONFormat: cfg.Telemetry.LogFormat == "json", TimeFormat: "2006-01-02T15:04:05.000Z0700",
	})
	life := lifecycle.New(log)
	m := &member{cfg: cfg, log: log, life: life}
	err := m.start(ctx, opts)
	if err == nil {
		log.Info("started", "version", Version, "cluster", cfg.Cluster.Name, "member", cfg.Member.ID, "address", cfg.Member.Advertise,
			"bundle_endpoint", cfg.BundleEndpoint.Listen, "operations", cfg.Telemetry.Listen, "admin_socket", m.dir.file(SocketName))
		if opts.Started != nil {
			opts.Started()
		}
		select {
		case <-ctx.Done():
			log.Info("stopping")
		case err = <-life.Failed():
			log.Error("this member cannot go on", "error", err)
		}
	}
	if m.operations != nil {
		m.operations.SetReady(nil)
	}
	if err != nil && ctx.Err() != nil {
		err = nil // it was told to stop before it had started
	}
	return errors.Join(err, life.Stop())
}

// start brings the member up, from below. What it has started when it fails is stopped by the caller.
func (m *member) start(ctx context.Context, opts Options) error {
	if err := m.build(); err != nil {
		return err
	}
	m.life.Start("collector", paceCollector)
	m.life.Start("port", m.port.Run)
	m.life.OnStop("store", m.store.Close) // before the port, whose connections it uses
	if !m.store.HasState() && !opts.Bootstrap && m.cfg.Join == nil {
		return fmt.Errorf("start member %s in %s: %w", m.cfg.Member.ID, m.cfg.Member.DataDir, errNoCluster)
	}
	if err := m.serveOperations(); err != nil {
		return err
	}
	m.serveMembers()
	m.life.Start("membership", m.members.Run)
	if err := m.enterCluster(ctx, opts.Bootstrap); err != nil {
		return err
	}
	if m.vault != nil {
		m.life.Start("vault", m.vault.Run)
	}
	if m.transit != nil {
		m.life.Start("keys in Vault", m.transit.Run)
	}
	m.life.Start("authority", m.authority.Run)
	m.life.Start("federation", m.federation.Run)
	m.life.Start("routing", m.routing.Run)
	m.life.Start("xds", m.xds.Run)
	m.life.Start("bundle watches", m.bundles.Run)
	m.life.Start("access", m.guard.Run)
	m.life.Start("recheck of callers", m.recheckCallers)
	m.life.Start("publisher", m.publisher.run)
	endpoint, err := m.endpointServer()
	if err != nil {
		return err
	}
	m.life.Start("bundle endpoint", endpoint.Run)
	m.life.OnStop("lead", m.handOver)
	if err := m.serveCallers(); err != nil {
		return err
	}
	m.life.OnStop("peer streams", func() error { m.federation.Drain(); return nil })
	m.life.Start("signals", m.followSignals)
	m.operations.SetReady(m.readiness())
	return nil
}

func (m *member) serveOperations() error {
	l, err := listen("operations", "telemetry.listen", m.cfg.Telemetry.Listen)
	if err != nil {
		return err
	}
	m.life.Start("operations", func(ctx context.Context) error { return m.operations.Serve(ctx, l) })
	return nil
}

// serveMembers serves fellow members and joiners.
func (m *member) serveMembers() {
	fellows := grpc.NewServer(append(serverOptions(port.Credentials()), fellowOptions()...)...)
	ententev1.RegisterStoreServiceServer(fellows, m.store.Service())
	ententev1.RegisterMemberServiceServer(fellows, m.members.MemberService())
	ententev1.RegisterSigningServiceServer(fellows, m.authority.SigningService())
	m.life.Start("service for members", serveGRPC(fellows, m.port.Listener(port.Member)))

	joiners := grpc.NewServer(joinOptions(port.Credentials())...)
	ententev1.RegisterJoinServiceServer(joiners, m.members.JoinService())
	ententev1.RegisterInvitationServiceServer(joiners, federation.NewInvitationService(m.federation))
	m.life.Start("service for joiners", serveGRPC(joiners, m.port.Listener(port.Join)))
}

// serveCallers lets clients and the local administrator in.
func (m *member) serveCallers() error {
	socket, err := access.ListenSocket(m.dir.file(SocketName))
	if err != nil {
		return err
	}
	local := grpc.NewServer(append(append(serverOptions(access.SocketCredentials()), grpc.ReadBufferSize(4<<10)), m.guard.ServerOptions()...)...)
	m.registerServices(local)
	m.life.Start("admin socket", serveGRPC(local, socket))

	api := grpc.NewServer(append(serverOptions(port.Credentials()), m.guard.ServerOptions()...)...)
	m.registerServices(api)
	m.life.Start("API", serveGRPC(api, m.port.Listener(port.GRPC)))
	return nil
}

func (m *member) registerServices(s *grpc.Server) {
	m.guard.RegisterServices(s)
	ententev1.RegisterClusterServiceServer(s, m.members.ClusterService())
	ententev1.RegisterDomainServiceServer(s, m.authority.DomainService())
	ententev1.RegisterAuthorityServiceServer(s, m.authority.AuthorityService())
	ententev1.RegisterSVIDServiceServer(s, m.authority.SVIDService())
	ententev1.RegisterBundleServiceServer(s, m.bundles)
	ententev1.RegisterFederationServiceServer(s, federation.NewService(m.federation))
	ententev1.RegisterPeerServiceServer(s, federation.NewPeerService(m.federation))
	ententev1.RegisterRoutingServiceServer(s, routing.NewServer(m.routing))
	m.xds.Register(s)
}

// enterCluster forms a cluster, joins one, or takes up where this member was.
func (m *member) enterCluster(ctx context.Context, bootstrap bool) error {
	switch {
	case m.store.HasState():
		if bootstrap || m.cfg.Join != nil {
			m.log.Info("this member belongs to a cluster already; --bootstrap and the join block have no effect")
		}
		return nil
	case bootstrap && m.cfg.Join != nil:
		return errors.New("--bootstrap forms a new cluster, and the join block joins an existing one; remove one of them")
	case bootstrap:
		return m.store.Bootstrap()
	}
	text, err := m.cfg.Join.Token.Read()
	if err != nil {
		return fmt.Errorf("join.token: %w", err)
	}
	token, err := membership.ParseToken(text)
	if err != nil {
		return fmt.Errorf("join.token: %w", err)
	}
	_, err = membership.Enter(ctx, membership.Entry{
		Token: token, Addresses: m.cfg.Join.Addresses, Self: m.members.Self, Identity: m.identity,
		ClusterName: m.cfg.Cluster.Name, HomeTrustDomain: m.cfg.Cluster.TrustDomain.Name(),
		Directory: m.directory, Dial: port.DialJoin, Credentials: port.Credentials(), Logger: m.log.Named("join"),
	})
	if err != nil {
		return fmt.Errorf("join cluster %s: %w", m.cfg.Cluster.Name, err)
	}
	return nil
}

// recheckCallers looks at open connections again whenever trust changed, so that a caller whose bundle or relationship is
// gone is gone too.
func (m *member) recheckCallers(ctx context.Context) error {
	return feed.Latest(ctx, m.store, trustPrefixes(), func(*raftstore.View) error {
		m.port.Recheck()
		return nil
	})
}

// handOver gives the lead to a fellow before this member goes, so that the cluster does not have to notice its absence.
func (m *member) handOver() error {
	if !m.store.IsLeader() || len(m.store.Servers().List()) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), graceful)
	defer cancel()
	if err := m.store.Servers().TransferLead(ctx, ""); err != nil {
		m.log.Warn("could not hand the lead over before stopping; the others will elect a leader", "error", err)
	}
	return nil
}

// followSignals opens the audit log anew at SIGHUP, after it was rotated.
func (m *member) followSignals(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			if err := m.audit.Reopen(); err != nil {
				m.log.Error("cannot open the audit log anew; it goes on in the file that it had", "error", err)
				continue
			}
			m.log.Info("opened the audit log anew")
		}
	}
}

// leaderSilence is for how long a member without word from a leader still counts as ready.
const leaderSilence = 15 * time.Second

func (m *member) readiness() []operations.Check {
	return []operations.Check{
		{Name: "leader", Test: func() error {
			if last := m.members.LastHeard(); time.Since(last) > leaderSilence {
				return fmt.Errorf("no leader was heard for %s: a majority of the members must be up and reach each other", leaderSilence)
			}
			return nil
		}},
		{Name: "vote", Test: func() error {
			for _, server := range m.store.Servers().List() {
				if server.MemberID == m.cfg.Member.ID && server.Voter {
					return nil
				}
			}
			return errors.New("this member has no vote yet; the leader gives it one when it has caught up")
		}},
		{Name: "svid", Test: func() error { _, err := m.authority.MemberSVID(); return err }},
		{Name: "bundle", Test: m.publisher.ready},
	}
}
