package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"

	"github.com/ententehq/entente/access/admission"
)

const (
	// maxMessage is the size limit of a gRPC message. A bundle document has at most 1 MiB, and comes with little else.
	// gRPC buffers a whole message before any check, on each stream of a peer.
	maxMessage = 2 << 20
	// maxHeader is the size limit of the metadata of a call, which this API does not use. The default of gRPC is 16
	// MiB.
	maxHeader = 16 << 10
	// callWindow is the limit of unread bytes of one call and of one connection. gRPC alone lets it grow to 16 MiB.
	callWindow = 256 << 10
	// maxJoinMessage and maxJoinCalls limit the memory that an unauthenticated joiner can occupy. A joiner sends one
	// request with names, addresses and a certificate, and an invited cluster two bundles of at most 100 KiB.
	maxJoinMessage = 256 << 10
	maxJoinCalls   = 2
	joinWindow     = 64 << 10
	// reception is the limit for receiving the message of a call of a member or joiner, as the guard has it for others.
	reception = 10 * time.Second
	// graceful is how long running calls may continue when the member stops. With what follows, a member stops within
	// three seconds.
	graceful = 1500 * time.Millisecond
	// pingInterval is how long a connection may be quiet before the member sends a ping. Clients with several addresses
	// leave a member that sends nothing for two seconds.
	pingInterval = time.Second
)

// serverOptions are common to all gRPC servers of a member. Most streams are idle watches, so connections have a small
// write buffer, and no read buffer, because TLS has one. The admin socket, which has no TLS, sets one.
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
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingInterval, Timeout: 30 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second,
			PermitWithoutStream: true}),
	}
}

// traced adds the options that make spans of calls, if traces are on. members is whether only members call the server.
func (m *member) traced(options []grpc.ServerOption, members bool) []grpc.ServerOption {
	if m.traces == nil {
		return options
	}
	return append(options, m.traces.ServerOptions(members)...)
}

// joinOptions are the options of the server for joiners, whose messages are received within a limit.
func joinOptions(creds credentials.TransportCredentials, within time.Duration) []grpc.ServerOption {
	options := append(serverOptions(creds), grpc.MaxRecvMsgSize(maxJoinMessage),
		grpc.MaxConcurrentStreams(maxJoinCalls),
		grpc.InitialWindowSize(joinWindow), grpc.InitialConnWindowSize(joinWindow))
	return append(options, receiveWithin(within)...)
}

// memberOptions are the options of the server for members, whose messages are received within a limit: a member can be
// in the hands of somebody else, or stop in the middle of a message.
func memberOptions(creds credentials.TransportCredentials, within time.Duration) []grpc.ServerOption {
	return append(serverOptions(creds), receiveWithin(within)...)
}

// receiveWithin limits the time for receiving the message of a unary call, which its caller could otherwise leave
// unfinished as long as the connection stands.
func receiveWithin(limit time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
			return admission.Receive(ctx, nil, limit, func() {}), nil
		}),
		grpc.ChainUnaryInterceptor(func(
			ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
		) (any, error) {
			admission.Received(ctx)
			return handler(ctx, request)
		}),
	}
}

// serveGRPC serves on a listener until ctx ends, and then lets running calls finish within graceful.
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
			s.Stop() // watches do not end by themselves
			<-stopped
		}
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// listen opens a listener. Errors name its purpose and the setting that holds the address.
func listen(what, setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen for %s: %w: stop what listens on %s, or set %s to another address",
			what, err, address, setting)
	case err != nil:
		return nil, fmt.Errorf("listen for %s: %w: set %s to an address of this machine that its user may listen on",
			what, err, setting)
	}
	return l, nil
}
