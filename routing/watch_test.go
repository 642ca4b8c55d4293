package routing

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust"
)

func TestWatchHint(t *testing.T) {
	r := newRoom(t)
	client := r.dial(t, access.SocketCaller(0, 1))
	_, err := first(client.WatchHint(t.Context(), &ententev1.WatchHintRequest{Service: "shop"}))
	refused(t, err, codes.InvalidArgument, "a region is needed")

	stream, err := client.WatchHint(t.Context(), &ententev1.WatchHintRequest{Service: "shop", Locality: euCaller.Proto()})
	require.NoError(t, err)
	next := func() *ententev1.Hint {
		h, err := stream.Recv()
		require.NoError(t, err)
		return h
	}
	require.Equal(t, "no instance is registered", next().GetReason())
	far := registration()
	far.SpiffeId = usWorkload.String()
	_, err = r.RegisterInstance(admin(t), &ententev1.RegisterInstanceRequest{Instance: far})
	require.NoError(t, err)
	require.Equal(t, "us.example.org is neither hosted here nor federated with; 'entente federation create us.example.org' creates a relationship",
		next().GetExcluded()[0].GetReason())
	other := registration()
	other.Service = "other"
	_, err = r.RegisterInstance(admin(t), &ententev1.RegisterInstanceRequest{Instance: other})
	require.NoError(t, err)
	// Another service moved, and nothing came; trust moves, and the hint with it.
	r.setTrust(t, "us.example.org", trust.Stale)
	h := next()
	require.Equal(t, ententev1.Freshness_FRESHNESS_STALE, h.GetPriorities()[0].GetLocalities()[0].GetEndpoints()[0].GetFreshness())
	require.Empty(t, h.GetExcluded())
}

// dial returns a client of the room over a connection on which the caller is who it is said to be.
func (r *room) dial(t testing.TB, caller access.Caller) ententev1.RoutingServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, m any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			return h(access.WithCaller(ctx, caller), m)
		}),
		grpc.StreamInterceptor(func(s any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return h(s, calledBy{stream, access.WithCaller(stream.Context(), caller)})
		}))
	ententev1.RegisterRoutingServiceServer(server, r.Server)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	conn, err := grpc.NewClient("passthrough:///routing", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return ententev1.NewRoutingServiceClient(conn)
}

type calledBy struct {
	grpc.ServerStream
	ctx context.Context
}

func (c calledBy) Context() context.Context { return c.ctx }

func first(stream ententev1.RoutingService_WatchHintClient, err error) (*ententev1.Hint, error) {
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}
