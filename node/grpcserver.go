package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	// maxMessage bounds a gRPC message: a bundle document has at most 1 MiB, and comes with little else. A message is held whole before anything
	// looks at it, which a peer can have done on each of its streams.
	maxMessage = 2 << 20
	// maxHeader bounds the metadata of a call, which holds nothing that this API reads. gRPC would take 16 MiB a stream.
	maxHeader = 16 << 10
	// callWindow is what may have come of one call, and over one connection, and not be read; of itself gRPC lets that grow to 16 MiB.
	callWindow = 256 << 10
	// maxJoinMessage and maxJoinCalls bound what a joiner, of whom nothing is known, makes this member hold: one request
	// of names, addresses and a certificate is all that it sends, or two bundles of at most 100 KiB of a cluster that was invited.
	maxJoinMessage = 256 << 10
	maxJoinCalls   = 2
	// graceful is how long calls under way may go on when the member stops.
	graceful = 3 * time.Second
)

// serverOptions are common to all gRPC servers of a member. Most streams are idle watches: gRPC lends them its buffer to write for a write, and
// there is none to read, since TLS has one. The socket, which has no TLS, sets one.
func serverOptions(creds credentials.TransportCredentials) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(1024),
		grpc.ReadBufferSize(0),
		grpc.WriteBufferSize(4 << 10),
		grpc.InitialWindowSize(callWindow),
		grpc.InitialConnWindowSize(callWindow),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// joinOptions are the options of the server for joiners.
func joinOptions(creds credentials.TransportCredentials) []grpc.ServerOption {
	return append(serverOptions(creds), grpc.MaxRecvMsgSize(maxJoinMessage), grpc.MaxConcurrentStreams(maxJoinCalls))
}

// serveGRPC serves on a listener until ctx ends, then lets calls under way finish for a moment.
func serveGRPC(s *grpc.Server, l net.Listener) func(context.Context) error {
	return func(ctx context.Context) error {
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		select {
		case err := <-served:
			return fmt.Errorf("serve at %s: %w", l.Addr(), err)
		case <-ctx.Done():
		}
		stopped := make(chan struct{})
		go func() { s.GracefulStop(); close(stopped) }()
		timer := time.NewTimer(graceful)
		defer timer.Stop()
		select {
		case <-stopped:
		case <-timer.C:
			s.Stop() // watches never end by themselves
			<-stopped
		}
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}
