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
	return service, ententev1.NewJoinServiceClient(conn)
}

func TestMessagesAndHeadersAreLimited(t *testing.T) {
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
		"a joiner's call":              {joinOptions, 1 << 10, maxJoinMessage - 1<<10, ""},
		"a joiner's huge header":       {joinOptions, maxHeader, 0, tooLargeHeader},
		"a joiner's oversized message": {joinOptions, 0, maxJoinMessage, tooLargeMessage},
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
	service, client := servedOn(t, joinOptions)
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
