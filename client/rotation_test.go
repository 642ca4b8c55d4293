package client

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
)

// starter is a member that can be made to answer that it is starting.
type starter struct {
	ententev1.UnimplementedDomainServiceServer
	ententev1.UnimplementedBundleServiceServer
	address  string
	starting atomic.Bool
	calls    atomic.Int64 // that it served
}

func newStarter(t *testing.T) *starter {
	t.Helper()
	s := &starter{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.address = l.Addr().String()
	server := grpc.NewServer()
	ententev1.RegisterDomainServiceServer(server, s)
	ententev1.RegisterBundleServiceServer(server, s)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return s
}

func (s *starter) answer() error {
	if s.starting.Load() {
		return apierror.New(codes.Unavailable, apierror.Starting, "starting: replaying the log, revision 3 of 9")
	}
	s.calls.Add(1)
	return nil
}

func (s *starter) DeleteDomain(
	context.Context, *ententev1.DeleteDomainRequest,
) (*ententev1.DeleteDomainResponse, error) {
	return &ententev1.DeleteDomainResponse{}, s.answer()
}

func (s *starter) WatchBundles(
	_ *ententev1.WatchBundlesRequest, stream grpc.ServerStreamingServer[ententev1.WatchBundlesResponse],
) error {
	if err := s.answer(); err != nil {
		return err
	}
	return stream.Send(&ententev1.WatchBundlesResponse{})
}

// rotating returns a client of members without TLS.
func rotating(t *testing.T, addresses ...string) *Client {
	t.Helper()
	c, err := (&config{addresses: addresses, creds: insecure.NewCredentials()}).client()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// TestStartingMemberIsLeft: a client with several addresses repeats a call, and begins its next stream, at a member
// that serves. When that one ends, it returns to the given order.
func TestStartingMemberIsLeft(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	down, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, down.Close())
	a, b, c := newStarter(t), newStarter(t), newStarter(t)
	a.starting.Store(true)
	b.starting.Store(true)
	client := rotating(t, down.Addr().String(), a.address, b.address, c.address)
	for n := range 3 {
		_, err = client.Domains().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{})
		require.NoError(t, err)
		require.EqualValues(t, n+1, c.calls.Load())
	}
	require.Zero(t, a.calls.Load()+b.calls.Load())

	c.starting.Store(true)
	b.starting.Store(false)
	stream := func() error {
		watch, err := client.Bundles().WatchBundles(ctx, &ententev1.WatchBundlesRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		return err
	}
	require.ErrorIs(t, stream(), ErrStarting, "a stream is not repeated")
	require.Eventually(t, func() bool { return stream() == nil }, time.Minute, time.Millisecond)
	require.Positive(t, b.calls.Load())
}

// TestEveryMemberIsStarting: the error is typed, and the call ends after each member was tried.
func TestEveryMemberIsStarting(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for n := 1; n <= 3; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var addresses []string
			var members []*starter
			for range n {
				s := newStarter(t)
				s.starting.Store(true)
				members, addresses = append(members, s), append(addresses, s.address)
			}
			client := rotating(t, addresses...)
			_, err := client.Domains().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{})
			require.ErrorIs(t, err, ErrStarting)
			require.ErrorIs(t, err, ErrUnavailable)
			require.NotErrorIs(t, err, ErrUnknownOutcome, "nothing was executed")
			require.EqualError(t, err, "starting: replaying the log, revision 3 of 9")
			members[n-1].starting.Store(false)
			_, err = client.Domains().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{})
			require.NoError(t, err)
		})
	}
}
