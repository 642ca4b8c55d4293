package access_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// as are server credentials that assign one caller to every connection, as a port does after its handshake.
type as struct {
	credentials.TransportCredentials
	caller access.Caller
}

type asInfo struct {
	credentials.CommonAuthInfo
	caller access.Caller
}

func (asInfo) AuthType() string              { return "test" }
func (i asInfo) AccessCaller() access.Caller { return i.caller }

func (a as) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, asInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, a.caller}, nil
}
func (a as) Clone() credentials.TransportCredentials { return a }

// domains implements some services of the API without any state.
type domains struct {
	v1.UnimplementedDomainServiceServer
	v1.UnimplementedBundleServiceServer
	v1.UnimplementedClusterServiceServer
	v1.UnimplementedSVIDServiceServer
	created atomic.Int32
	ids     chan spiffeid.ID // the IDs for which handlers call Permits
	bundles chan *v1.WatchBundlesResponse
}

func (d *domains) CreateDomain(_ context.Context, m *v1.CreateDomainRequest) (*v1.Domain, error) {
	d.created.Add(1)
	switch m.GetDomain().GetTrustDomain() {
	case "panic.test":
		panic("with a secret in it")
	case "leaderless.test":
		return nil, raftstore.ErrNoLeader
	}
	return &v1.Domain{TrustDomain: m.GetDomain().GetTrustDomain(), Revision: 17}, nil
}

func (d *domains) ListDomains(context.Context, *v1.ListDomainsRequest) (*v1.ListDomainsResponse, error) {
	return &v1.ListDomainsResponse{Revision: 5, Domains: []*v1.Domain{{TrustDomain: "eu.test"},
		{TrustDomain: "pay.test"}}}, nil
}

func (d *domains) GetDomain(ctx context.Context, _ *v1.GetDomainRequest) (*v1.Domain, error) {
	return &v1.Domain{}, access.Permits(ctx, <-d.ids)
}

func (d *domains) IssueX509SVIDs(ctx context.Context, _ *v1.IssueX509SVIDsRequest) (*v1.IssueX509SVIDsResponse, error) {
	return &v1.IssueX509SVIDsResponse{}, access.Permits(ctx, <-d.ids)
}

func (d *domains) WatchBundles(_ *v1.WatchBundlesRequest, s grpc.ServerStreamingServer[v1.WatchBundlesResponse]) error {
	for {
		select {
		case m := <-d.bundles:
			if err := s.Send(m); err != nil {
				return err
			}
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (d *domains) RestoreSnapshot(
	s grpc.ClientStreamingServer[v1.RestoreSnapshotRequest, v1.RestoreSnapshotResponse],
) error {
	for {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			return s.SendAndClose(&v1.RestoreSnapshotResponse{Revision: 99})
		} else if err != nil {
			return err
		}
	}
}

type harness struct {
	*domains
	store   *raftstore.Store
	guard   *access.Guard
	log     *audit.Log
	path    string
	metrics *prometheus.Registry
}

func build(t testing.TB) *harness {
	t.Helper()
	return buildWith(t, func(*access.GuardConfig) {})
}

func buildWith(t testing.TB, change func(*access.GuardConfig)) *harness {
	t.Helper()
	h := &harness{
		domains: &domains{ids: make(chan spiffeid.ID, 1), bundles: make(chan *v1.WatchBundlesResponse)},
		store:   raftstoretest.New(t),
		path:    filepath.Join(t.TempDir(), "audit.log"),
		metrics: prometheus.NewRegistry(),
	}
	var err error
	h.log, err = audit.Open(audit.Config{Path: h.path, Member: "eu-1"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.log.Close()) })
	config := access.GuardConfig{
		Store:      h.store,
		Home:       world.Home,
		Hosted:     func(_ raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return world.Hosted(td), nil },
		Log:        h.log,
		Registerer: h.metrics,
	}
	change(&config)
	h.guard, err = access.NewGuard(config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.guard.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	return h
}

// dial connects as a caller.
func (h *harness) dial(t testing.TB, caller access.Caller) *grpc.ClientConn {
	t.Helper()
	server := grpc.NewServer(append(h.guard.ServerOptions(), grpc.Creds(as{insecure.NewCredentials(), caller}))...)
	h.guard.RegisterServices(server)
	v1.RegisterDomainServiceServer(server, h.domains)
	v1.RegisterBundleServiceServer(server, h.domains)
	v1.RegisterClusterServiceServer(server, h.domains)
	v1.RegisterSVIDServiceServer(server, h.domains)
	v1.RegisterMemberServiceServer(server, &v1.UnimplementedMemberServiceServer{})
	return serve(t, server)
}

// serve runs a server until the test ends, and connects to it.
func serve(t testing.TB, server *grpc.Server) *grpc.ClientConn {
	t.Helper()
	const bufferBytes = 64 << 10
	listener := bufconn.Listen(bufferBytes)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///harness", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn,
			error) {
			return listener.DialContext(ctx)
		}))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-served)
	})
	return conn
}

// lines returns the lines of the audit log as "caller|action|object|result|revision|detail".
func (h *harness) lines(t *testing.T) []string {
	t.Helper()
	return h.read(t, h.log.Tail(audit.MaxTailLines, false, nil))
}

// await waits until the audit log has at least n lines, and returns all of them.
func (h *harness) await(t *testing.T, n int) []string {
	t.Helper()
	tail := h.log.Tail(audit.MaxTailLines, true, nil)
	for range n {
		_, err := tail.Next(t.Context())
		require.NoError(t, err)
	}
	return h.lines(t)
}

func (*harness) read(t *testing.T, tail *audit.Tail) []string {
	t.Helper()
	var all []string
	for {
		e, err := tail.Next(t.Context())
		if errors.Is(err, audit.ErrTailEnd) {
			return all
		}
		require.NoError(t, err)
		line := []string{e.Caller, e.Action, e.Object, e.Result}
		if e.Revision != 0 {
			line = append(line, "revision")
		}
		if e.Detail != "" {
			line = append(line, e.Detail)
		}
		all = append(all, strings.Join(line, "|"))
	}
}

var (
	root = access.SocketCaller(0, 42)
	ci   = access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.test/ci"))
)

func create(td string) *v1.CreateDomainRequest {
	return &v1.CreateDomainRequest{Domain: &v1.Domain{TrustDomain: td}}
}

func TestGuardAudits(t *testing.T) {
	h := build(t)
	client := v1.NewDomainServiceClient(h.dial(t, root))
	_, err := client.CreateDomain(t.Context(), create("pay.test"))
	require.NoError(t, err)
	_, err = client.CreateDomain(t.Context(), create("leaderless.test"))
	require.Equal(t, codes.Unavailable, status.Code(err))
	_, err = client.CreateDomain(t.Context(), create("panic.test"))
	require.EqualError(t, err, "rpc error: code = Internal desc = DomainService/CreateDomain failed by a defect of "+
		"the server: its log has the details")
	_, err = client.ListDomains(t.Context(), &v1.ListDomainsRequest{})
	require.NoError(t, err)
	_, err = v1.NewDomainServiceClient(h.dial(t, ci)).CreateDomain(t.Context(), create("evil.test"))
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.Equal(t, []string{
		"admin socket (uid 0, pid 42)|DomainService/CreateDomain|pay.test|begun",
		"admin socket (uid 0, pid 42)|DomainService/CreateDomain|pay.test|done|revision",
		"admin socket (uid 0, pid 42)|DomainService/CreateDomain|leaderless.test|begun",
		"admin socket (uid 0, pid 42)|DomainService/CreateDomain|leaderless.test|failed|Unavailable: the cluster has " +
			"no leader that this member can reach: check that a majority of members runs and can reach each other",
		"admin socket (uid 0, pid 42)|DomainService/CreateDomain|panic.test|begun",
		"admin socket (uid 0, pid 42)|DomainService/CreateDomain|panic.test|failed|Internal: " +
			"DomainService/CreateDomain failed by a defect of the server: its log has the details",
		"spiffe://eu.test/ci|DomainService/CreateDomain||denied|no_grant",
	}, h.await(t, 7))
}

func TestWhatCannotBeAuditedIsNotDone(t *testing.T) {
	h := build(t)
	client := v1.NewDomainServiceClient(h.dial(t, root))
	require.NoError(t, h.log.Close())
	_, err := client.CreateDomain(t.Context(), create("pay.test"))
	require.EqualError(t, err, "rpc error: code = Unavailable desc = DomainService/CreateDomain pay.test: not done, "+
		"because it cannot be audited: write the audit log "+h.path+": the audit log is closed: the member is "+
		"stopping; make room on the member's disk, or use another member")
	require.Zero(t, h.created.Load())
	_, err = client.ListDomains(t.Context(), &v1.ListDomainsRequest{})
	require.NoError(t, err, "reading needs no audit")
}

func TestGuardDeniesWithoutRuleOrCaller(t *testing.T) {
	h := build(t)
	_, err := v1.NewMemberServiceClient(h.dial(t, root)).Heartbeat(t.Context(), &v1.HeartbeatRequest{})
	require.EqualError(t, err, "rpc error: code = Unimplemented desc = MemberService/Heartbeat cannot be called "+
		"here")
	_, err = v1.NewDomainServiceClient(h.dial(t, access.Caller{})).ListDomains(t.Context(), &v1.ListDomainsRequest{})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	require.NoError(t, testutil.GatherAndCompare(h.metrics, strings.NewReader(`
# HELP entente_access_calls_total Calls of the gRPC API, by method and gRPC code.
# TYPE entente_access_calls_total counter
entente_access_calls_total{code="Unauthenticated",method="DomainService/ListDomains"} 1
entente_access_calls_total{code="Unimplemented",method="other"} 1
`), "entente_access_calls_total"))
}

func TestStreamsEndWithTheirGrants(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	reader := &v1.Grant{Role: grant.Reader, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "pay.test"}
	_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: reader})
	require.NoError(t, err)
	bundles := v1.NewBundleServiceClient(h.dial(t, ci))
	watch := func() grpc.ServerStreamingClient[v1.WatchBundlesResponse] {
		stream, err := bundles.WatchBundles(t.Context(), &v1.WatchBundlesRequest{})
		require.NoError(t, err)
		h.bundles <- &v1.WatchBundlesResponse{
			Changed: []*v1.Bundle{{TrustDomain: "eu.test"}, {TrustDomain: "pay.test"}, {TrustDomain: "us.test"}},
		}
		m, err := stream.Recv()
		require.NoError(t, err)
		require.Len(t, m.GetChanged(), 2, "its own, and the foreign one")
		return stream
	}

	// The stream continues after a change of another caller's grants, and ends after one of its own.
	stream := watch()
	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Reader,
		SpiffeId: "spiffe://eu.test/other"}})
	require.NoError(t, err)
	h.bundles <- &v1.WatchBundlesResponse{Deleted: []string{"us.test", "eu.test"}}
	m, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, []string{"us.test"}, m.GetDeleted())
	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Peer,
		SpiffeId: "spiffe://eu.test/ci", TrustDomain: "pay.test"}})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.EqualError(t, err, "rpc error: code = Unavailable desc = the grants of spiffe://eu.test/ci have changed: "+
		"open the stream again")
	_, err = admin.RevokeRole(t.Context(), &v1.RevokeRoleRequest{Role: grant.Peer, SpiffeId: "spiffe://eu.test/ci",
		TrustDomain: "pay.test"})
	require.NoError(t, err)

	stream = watch()
	_, err = admin.RevokeRole(t.Context(), &v1.RevokeRoleRequest{Role: reader.GetRole(), SpiffeId: reader.GetSpiffeId(),
		TrustDomain: reader.GetTrustDomain()})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.EqualError(t, err, "rpc error: code = PermissionDenied desc = the stream was ended because access to it "+
		"was revoked: spiffe://eu.test/ci may not call BundleService/WatchBundles: it needs the role reader, "+
		"discovery, issuer, peer, operator or admin, and has none. To allow it, an administrator runs: entente "+
		"access grant reader --spiffe-id spiffe://eu.test/ci")
}

func TestStreamsAreAudited(t *testing.T) {
	h := build(t)
	cluster := v1.NewClusterServiceClient(h.dial(t, root))
	upload, err := cluster.RestoreSnapshot(t.Context())
	require.NoError(t, err)
	require.NoError(t, upload.Send(&v1.RestoreSnapshotRequest{Data: []byte("a")}))
	require.NoError(t, upload.Send(&v1.RestoreSnapshotRequest{Data: []byte("b")}))
	_, err = upload.CloseAndRecv()
	require.NoError(t, err)

	denied, err := v1.NewClusterServiceClient(h.dial(t, ci)).RestoreSnapshot(t.Context())
	require.NoError(t, err)
	_, err = denied.CloseAndRecv()
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.Equal(t, []string{
		"admin socket (uid 0, pid 42)|ClusterService/RestoreSnapshot||begun",
		"admin socket (uid 0, pid 42)|ClusterService/RestoreSnapshot||done|revision",
		"spiffe://eu.test/ci|ClusterService/RestoreSnapshot||denied|no_grant",
	}, h.await(t, 3))
}

func TestReservedIDsAreRefusedInABatch(t *testing.T) {
	h := build(t)
	batch := func(id string) error {
		h.ids <- spiffeid.RequireFromString(id)
		_, err := v1.NewSVIDServiceClient(h.dial(t, access.SocketCaller(0, 1))).IssueX509SVIDs(t.Context(),
			&v1.IssueX509SVIDsRequest{TrustDomain: "eu.test"})
		return err
	}
	require.NoError(t, batch("spiffe://eu.test/web"))
	require.EqualError(t, batch("spiffe://eu.test/entente/member/eu-1"), "rpc error: code = PermissionDenied desc = "+
		"spiffe://eu.test/entente/member/eu-1 is never issued through the API: only the server itself issues IDs "+
		"below /entente/; choose another path")
}
