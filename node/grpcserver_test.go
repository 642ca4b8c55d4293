package node

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// slowJoins blocks each call until its caller cancels it.
type slowJoins struct {
	ententev1.UnimplementedJoinServiceServer
	calls atomic.Int32
	begun chan struct{}
}

func (s *slowJoins) Join(ctx context.Context, _ *ententev1.JoinRequest) (*ententev1.JoinResponse, error) {
	s.calls.Add(1)
	s.begun <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func servedOn(
	t *testing.T, options func(credentials.TransportCredentials) []grpc.ServerOption,
) (*slowJoins, ententev1.JoinServiceClient) {
	t.Helper()
	service, conn := connectedTo(t, options)
	return service, ententev1.NewJoinServiceClient(conn)
}

func connectedTo(
	t *testing.T, options func(credentials.TransportCredentials) []grpc.ServerOption,
) (*slowJoins, *grpc.ClientConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	service := &slowJoins{begun: make(chan struct{}, 16)}
	server := grpc.NewServer(options(insecure.NewCredentials())...)
	ententev1.RegisterJoinServiceServer(server, service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-served)
	})
	return service, conn
}

// within gives options a limit for receiving messages.
func within(
	limit time.Duration, options func(credentials.TransportCredentials, time.Duration) []grpc.ServerOption,
) func(credentials.TransportCredentials) []grpc.ServerOption {
	return func(creds credentials.TransportCredentials) []grpc.ServerOption { return options(creds, limit) }
}

func TestMessagesAndHeadersAreLimited(t *testing.T) {
	members, joiners := within(reception, memberOptions), within(reception, joinOptions)
	const (
		tooLargeHeader  = "header list size to send violates the maximum size"
		tooLargeMessage = "received message larger than max"
	)
	for name, c := range map[string]struct {
		options func(credentials.TransportCredentials) []grpc.ServerOption
		header  int
		message int
		refusal string // if empty, the call is admitted
	}{
		"a client's call":              {serverOptions, 1 << 10, maxMessage - 1<<10, ""},
		"a client's huge header":       {serverOptions, maxHeader, 0, tooLargeHeader},
		"a client's huge message":      {serverOptions, 0, maxMessage, tooLargeMessage},
		"a member's call":              {members, 1 << 10, maxMessage - 1<<10, ""},
		"a member's huge message":      {members, 0, maxMessage, tooLargeMessage},
		"a joiner's call":              {joiners, 1 << 10, maxJoinMessage - 1<<10, ""},
		"a joiner's huge header":       {joiners, maxHeader, 0, tooLargeHeader},
		"a joiner's oversized message": {joiners, 0, maxJoinMessage, tooLargeMessage},
	} {
		t.Run(name, func(t *testing.T) {
			service, client := servedOn(t, c.options)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			admitted := c.refusal == ""
			if admitted {
				go func() { <-service.begun; cancel() }()
			}
			ctx = metadata.AppendToOutgoingContext(ctx, "x", strings.Repeat("x", c.header))
			_, err := client.Join(ctx, &ententev1.JoinRequest{TokenSecret: make([]byte, c.message)})
			if !admitted {
				require.ErrorContains(t, err, c.refusal)
			}
			require.NotEqual(t, codes.DeadlineExceeded, status.Code(err))
			require.Equal(t, admitted, service.calls.Load() == 1, "%v", err)
		})
	}
}

func TestConcurrentJoinCallsAreLimited(t *testing.T) {
	service, client := servedOn(t, within(reception, joinOptions))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	call := func() { _, err := client.Join(ctx, &ententev1.JoinRequest{}); done <- err }
	// The client gets the limit with the server's first settings, so the first call runs alone.
	go call()
	<-service.begun
	for range maxJoinCalls {
		go call()
	}
	for range maxJoinCalls - 1 {
		<-service.begun
	}
	short, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	_, err := client.Join(short, &ententev1.JoinRequest{})
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.EqualValues(t, maxJoinCalls, service.calls.Load())
	cancel()
	for range maxJoinCalls + 1 {
		require.Equal(t, codes.Canceled, status.Code(<-done))
	}
}

// TestUnfinishedCallsEnd: a call whose message does not arrive ends, and one whose message has arrived goes on.
func TestUnfinishedCallsEnd(t *testing.T) {
	const limit = 3 * time.Second
	for name, options := range map[string]func(credentials.TransportCredentials, time.Duration) []grpc.ServerOption{
		"of a member": memberOptions,
		"of a joiner": joinOptions,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service, conn := connectedTo(t, within(limit, options))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := ententev1.NewJoinServiceClient(conn).Join(ctx, &ententev1.JoinRequest{})
				done <- err
			}()
			<-service.begun
			silent, err := conn.NewStream(t.Context(), &grpc.StreamDesc{}, ententev1.JoinService_Join_FullMethodName)
			require.NoError(t, err)
			require.Equal(t, codes.DeadlineExceeded, status.Code(silent.RecvMsg(&ententev1.JoinResponse{})))
			require.EqualValues(t, 1, service.calls.Load())
			require.Empty(t, done, "its limit has passed too")
			cancel()
			require.Equal(t, codes.Canceled, status.Code(<-done))
		})
	}
}

// TestOpenCallsEndAtAStop: a call that does not end by itself, as a watch, does not hold up the stop for longer than
// graceful. With a hand-over of leadership before it, which has the same limit, that is 3 seconds.
func TestOpenCallsEndAtAStop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	service := &slowJoins{begun: make(chan struct{}, 1)}
	server := grpc.NewServer(serverOptions(insecure.NewCredentials())...)
	ententev1.RegisterJoinServiceServer(server, service)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- serveGRPC(server, l)(ctx) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	done := make(chan error, 1)
	go func() {
		_, err := ententev1.NewJoinServiceClient(conn).Join(t.Context(), &ententev1.JoinRequest{})
		done <- err
	}()
	<-service.begun
	began := time.Now()
	stop()
	require.NoError(t, <-stopped)
	require.GreaterOrEqual(t, time.Since(began), graceful, "a call that is about to end may do so")
	require.Error(t, <-done)
	require.LessOrEqual(t, 2*graceful, 3*time.Second)
}
