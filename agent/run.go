package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	ads "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/ententehq/entente/agent/attest"
	"github.com/ententehq/entente/agent/cache"
	"github.com/ententehq/entente/agent/sds"
	"github.com/ententehq/entente/agent/workload"
	"github.com/ententehq/entente/agent/workloadapi"
	"github.com/ententehq/entente/agent/xds"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/logthrottle"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// Options are what a process gives its agent beside the configuration.
type Options struct {
	Version   string
	LogOutput io.Writer
	// Started is called once the socket of the workloads is served. It may be nil.
	Started func()
}

// agent is a running agent.
type agent struct {
	cfg     Config
	log     hclog.Logger
	node    *attest.Node
	client  *client.Client
	cache   *cache.Cache
	metrics *metrics
	// sealed stores the cache. It is nil if that is in memory alone.
	sealed *sealedCache
	// attestors are those of workloads.
	attestors []workload.Attestor
	// refused is why the cluster refuses the agent: it is banned, or was evicted. It is nil if the cluster does not.
	refused atomic.Pointer[string]
}

// Run runs an agent until ctx ends, and then returns nil. It returns an error if the agent cannot start, or if the
// cluster refuses it before it has started.
func Run(ctx context.Context, cfg Config, opts Options) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	log, throttle := logthrottle.New(hclog.New(&hclog.LoggerOptions{
		Name: "agent", Level: hclog.LevelFromString(cfg.LogLevel), JSONFormat: cfg.LogFormat == "json",
		Output: opts.LogOutput,
	}))
	defer throttle.Close()
	a := &agent{cfg: cfg, log: log}
	identity, err := cfg.attestation(opts.Version, a.log.Named("attest"))
	if err != nil {
		return err
	}
	if a.node, err = attest.Open(identity); err != nil {
		return err
	}
	a.cache = cache.New(issuer{a}, a.log.Named("cache"))
	a.metrics = newMetrics(a)
	if cfg.CacheKeyFile != "" {
		if a.sealed, err = newSealedCache(cfg.DataDir, cfg.CacheKeyFile); err != nil {
			return err
		}
	}
	if a.attestors, err = cfg.attestors(a.cache.Uses, a.log); err != nil {
		return err
	}
	admin, err := a.listenAdmin()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.serveAdmin(ctx, admin) })
	group.Go(func() error { return a.run(ctx, opts) })
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// run attests the agent, and then follows the cluster and serves the workloads.
func (a *agent) run(ctx context.Context, opts Options) error {
	if a.restore() {
		a.log.Info("serves from the stored cache until a member answers", "spiffe_id", a.node.ID(), "until",
			a.node.Expiry())
	} else {
		if err := a.node.Attest(ctx); err != nil {
			return err
		}
		a.log.Info("the agent is attested", "spiffe_id", a.node.ID(), "until", a.node.Expiry())
	}
	var err error
	if a.client, err = a.connect(a.node); err != nil {
		return err
	}
	defer a.client.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.node.KeepFresh(ctx, a.client.Node()) })
	group.Go(func() error { return a.cache.Run(ctx) })
	group.Go(func() error { return a.followBundles(ctx) })
	group.Go(func() error { return a.followEntries(ctx) })
	group.Go(func() error { return a.followDistrusted(ctx) })
	group.Go(func() error { return a.serve(ctx, opts.Started) })
	group.Go(func() error { return a.keepSaved(ctx) })
	return group.Wait()
}

// lag is how long members may refuse an agent that another one has just attested, because they do not have its row yet.
const lag = 30 * time.Second

// openBundles opens the source of the bundles.
func (a *agent) openBundles(ctx context.Context) (*client.BundleSource, error) {
	until := time.Now().Add(lag)
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 2*time.Second
	for {
		bundles, err := client.NewBundleSource(ctx, a.client, client.BundleSourceConfig{OnEvent: func(e client.Event) {
			a.log.Warn("bundles: "+e.Message, "error", e.Err)
		}})
		if !errors.Is(err, client.ErrDenied) || time.Now().After(until) {
			return bundles, err
		}
		timer := time.NewTimer(wait.NextBackOff())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

func (a *agent) followBundles(ctx context.Context) error {
	bundles, err := a.openBundles(ctx)
	if err != nil {
		return err
	}
	defer bundles.Close() //nolint:errcheck // the process ends
	for {
		all := bundles.Bundles()
		for _, b := range all {
			a.node.SetBundle(b)
		}
		a.cache.SetBundles(all)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-bundles.Updated():
		}
	}
}

func (a *agent) followEntries(ctx context.Context) error {
	broken := func(err error) {
		if errors.Is(err, client.ErrDenied) {
			reason := err.Error()
			a.refused.Store(&reason)
			a.log.Error("the cluster refuses this agent", "error", err)
			return
		}
		a.log.Warn("receives no changes of entries until the stream is open again", "error", err)
	}
	members := func(servers []*ententev1.AgentServer) {
		if err := a.node.SetServers(servers); err != nil {
			a.log.Error("the members of the cluster could not be stored", "error", err)
		}
		a.client.SetAddresses(a.node.Addresses()...)
	}
	for entries, err := range a.client.WatchEntries(ctx, members, broken) {
		if err != nil {
			return err
		}
		a.refused.Store(nil)
		a.cache.SetEntries(entries)
	}
	return ctx.Err()
}

func (a *agent) followDistrusted(ctx context.Context) error {
	broken := func(err error) {
		a.log.Warn("receives no changes of authorities until the stream is open again", "error", err)
	}
	for ids, err := range a.client.WatchDistrusted(ctx, broken) {
		if err != nil {
			return err
		}
		a.node.SetDistrusted(ids)
		a.cache.SetDistrusted(ids)
	}
	return ctx.Err()
}

// issuer has SVIDs signed by the cluster.
type issuer struct{ a *agent }

// IssueX509SVIDs implements [cache.Issuer].
func (i issuer) IssueX509SVIDs(
	ctx context.Context, requests []*ententev1.EntryX509Request,
) ([]*ententev1.X509SVIDResult, error) {
	answer, err := i.a.client.Node().IssueEntryX509SVIDs(ctx, &ententev1.IssueEntryX509SVIDsRequest{Requests: requests})
	return answer.GetResults(), err
}

// IssueJWTSVID implements [cache.Issuer].
func (i issuer) IssueJWTSVID(
	ctx context.Context, entryID string, audience []string,
) (*ententev1.IssueJWTSVIDResponse, error) {
	return i.a.client.Node().IssueEntryJWTSVID(ctx, &ententev1.IssueEntryJWTSVIDRequest{
		EntryId: entryID, Audience: audience,
	})
}

const (
	// maxMessage bounds what a workload sends: a token to validate, or the names of secrets.
	maxMessage = 1 << 20
	// callsEach bounds the calls under way on one connection. A library has four.
	callsEach = 100
	// maxConnections and maxCalls bound those of all workloads, of which one user has no more than are free: each call
	// takes up to 30 KiB.
	maxConnections, maxCalls = 8192, 16384
	graceful                 = time.Second
)

// connections returns how many connections of workloads there can be. Each has two file descriptors.
func connections() int {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return maxConnections
	}
	const others = 128
	return int(min(max(files.Cur, 2*others)-others, 2*maxConnections) / 2) //nolint:gosec // at most maxConnections
}

// serve serves the workloads until ctx ends.
func (a *agent) serve(ctx context.Context, started func()) error {
	l, err := listenWorkloads(a.cfg.Socket)
	if err != nil {
		return err
	}
	identifier := &workloadapi.Identifier{
		Cache: a.cache, Attestors: a.attestors,
		Logger: a.log.Named("workloads"), Attested: a.metrics.attested,
	}
	// Most streams are idle, so that connections have small buffers.
	options := append(workloadapi.ServerOptions(workload.NewShares(maxCalls), identifier.Logger),
		grpc.Creds(workload.Credentials(workload.NewShares(connections()), identifier.Logger)),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(callsEach),
		grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 5 * time.Second, PermitWithoutStream: true,
		}))
	s := grpc.NewServer(options...)
	workloadpb.RegisterSpiffeWorkloadAPIServer(s, workloadapi.New(identifier, a.metrics.pushed))
	secret.RegisterSecretDiscoveryServiceServer(s, sds.New(identifier, a.cfg.names(), a.metrics.pushed))
	relay := xds.New(xds.Config{
		MaxStale: a.cfg.maxStale, Logger: a.log.Named("xds"),
		Metadata: map[string]string{xdsupdate.CertificateKey: xdsupdate.CertificateOverADS},
	})
	defer relay.Close()
	routes := &routes{agent: a, identifier: identifier, relay: relay}
	ads.RegisterAggregatedDiscoveryServiceServer(s, xds.Server{Handler: routes.handler})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	a.log.Info("serves the Workload API, SDS and xDS", "socket", a.cfg.Socket)
	if started != nil {
		started()
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", a.cfg.Socket, err)
	case <-ctx.Done():
	}
	timer := time.AfterFunc(graceful, s.Stop) // streams do not end by themselves
	defer timer.Stop()
	s.GracefulStop()
	return errors.Join(ctx.Err(), <-served)
}

// Identity attests the agent of a data folder, and returns the source of its X509-SVID and of the bundle of the home
// trust domain. The SVID is not renewed.
func Identity(ctx context.Context, cfg Config) (*attest.Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	identity, err := cfg.attestation("", hclog.NewNullLogger())
	if err != nil {
		return nil, err
	}
	node, err := attest.Open(identity)
	if err != nil {
		return nil, err
	}
	return node, node.Attest(ctx)
}
