package routingtest

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// NewGuard returns the guard of a cluster that hosts eu.example.org and verifies the IDs of us.example.org.
func NewGuard(t testing.TB, store *raftstore.Store) *access.Guard {
	t.Helper()
	log, err := audit.Open(audit.Config{Path: filepath.Join(t.TempDir(), "audit.log"), Member: "eu-1"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	home := spiffeid.RequireTrustDomainFromString("eu.example.org")
	guard, err := access.NewGuard(access.GuardConfig{
		Store: store, Home: home, Log: log,
		Hosted: func(_ raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return td == home, nil },
		Direct: func(_ raftstore.Reader, td spiffeid.TrustDomain) (bool, error) {
			return td == home || td.Name() == "us.example.org", nil
		},
	})
	require.NoError(t, err)
	return guard
}

// Grant grants roles as the local administrator.
func Grant(t testing.TB, guard *access.Guard, grants ...*ententev1.Grant) {
	t.Helper()
	client := ententev1.NewAccessServiceClient(DialGuarded(t, guard, nil, Local))
	for _, g := range grants {
		_, err := client.GrantRole(t.Context(), &ententev1.GrantRoleRequest{Grant: g})
		require.NoError(t, err)
	}
}

// DialGuarded connects to a server behind a guard, over a connection on which the caller is authenticated.
func DialGuarded(
	t testing.TB, guard *access.Guard, server ententev1.RoutingServiceServer, caller access.Caller,
) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	creds := grpc.Creds(callerCredentials{insecure.NewCredentials(), caller})
	s := grpc.NewServer(append(guard.ServerOptions(), creds)...)
	guard.RegisterServices(s)
	if server != nil {
		ententev1.RegisterRoutingServiceServer(s, server)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(listener) })
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	conn, err := grpc.NewClient(
		"passthrough:///routing",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) },
		),
	)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// callerCredentials authenticate every connection as one caller.
type callerCredentials struct {
	credentials.TransportCredentials
	caller access.Caller
}

func (c callerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, callerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, c.caller}, nil
}

func (c callerCredentials) Clone() credentials.TransportCredentials { return c }

type callerInfo struct {
	credentials.CommonAuthInfo
	caller access.Caller
}

func (callerInfo) AuthType() string              { return "test" }
func (i callerInfo) AccessCaller() access.Caller { return i.caller }
