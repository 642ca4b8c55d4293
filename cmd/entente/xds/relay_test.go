package xds

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/clocktest"
)

// echo responds to each request with its type.
type echo struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
}

func (echo) StreamAggregatedResources(s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if err := s.Send(&discovery.DiscoveryResponse{TypeUrl: m.GetTypeUrl()}); err != nil {
			return err
		}
	}
}

// powered is a connection to a host that can lose its power: then nothing is delivered in either direction.
type powered struct {
	net.Conn
	off    *atomic.Bool
	closed context.Context //nolint:containedctx // it ends with the connection
	end    context.CancelFunc
}

func (p powered) Write(b []byte) (int, error) {
	if p.off.Load() {
		return len(b), nil
	}
	return p.Conn.Write(b)
}

func (p powered) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if p.off.Load() {
		<-p.closed.Done()
		return 0, net.ErrClosed
	}
	return n, err
}

func (p powered) Close() error {
	p.end()
	return p.Conn.Close()
}

// A member whose host lost its power ends no connection. The stream of the program ends nevertheless.
func TestRelayDetectsADeadMember(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		member, socket := bufconn.Listen(1<<16), bufconn.Listen(1<<16)
		server := grpc.NewServer()
		discovery.RegisterAggregatedDiscoveryServiceServer(server, echo{})
		served := make(chan error, 2)
		go func() { served <- server.Serve(member) }()
		var off atomic.Bool
		dialer := func(to *bufconn.Listener, wrap func(net.Conn) net.Conn) grpc.DialOption {
			return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				raw, err := to.DialContext(ctx)
				if err != nil {
					return nil, err
				}
				return wrap(raw), nil
			})
		}
		up, err := client.New(ctx, client.WithAdminSocket("/member"), client.WithDialOptions(
			dialer(member, func(c net.Conn) net.Conn {
				closed, end := context.WithCancel(context.Background())
				return powered{c, &off, closed, end}
			})))
		require.NoError(t, err)
		go func() { served <- relayAt(ctx, socket, up.Conn()) }()
		down, err := grpc.NewClient("passthrough:///relay", grpc.WithTransportCredentials(insecure.NewCredentials()),
			dialer(socket, func(c net.Conn) net.Conn { return c }))
		require.NoError(t, err)
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(down).StreamAggregatedResources(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&discovery.DiscoveryRequest{TypeUrl: "one"}))
		m, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "one", m.GetTypeUrl())

		off.Store(true)
		died := time.Now()
		_, err = stream.Recv()
		require.Less(t, time.Since(died), time.Minute)
		require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)

		cancel()
		require.NoError(t, down.Close())
		require.NoError(t, up.Close())
		server.Stop()
		<-served
		<-served
	})
}

// Only the user can use a socket, from the first moment. A stale socket is replaced, and nothing else.
func TestListenUnix(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	path := filepath.Join(t.TempDir(), "xds.sock")
	first, err := listenUnix(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	_, err = listenUnix(path)
	require.ErrorContains(t, err, "another process listens at "+path+": ")
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, first.Close())
	second, err := listenUnix(path)
	require.NoError(t, err)
	require.NoError(t, second.Close())
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	_, err = listenUnix(path)
	require.ErrorContains(t, err, "address already in use")
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "mine", string(kept))
}
