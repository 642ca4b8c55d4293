package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/node/port"
)

const (
	// maxMessage bounds a gRPC message: a bundle document has at most 1 MiB, and comes with little else.
	maxMessage = 4 << 20
	// graceful is how long calls under way may go on when the member stops.
	graceful = 3 * time.Second
)

// serverOptions are common to all gRPC servers of a member. Buffers are shared, since most streams are idle watches.
func serverOptions(creds credentials.TransportCredentials) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(1024),
		grpc.SharedWriteBuffer(true),
		grpc.ReadBufferSize(4 << 10),
		grpc.WriteBufferSize(4 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
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

// memberCallers tells the handlers of calls between members who is calling. The port has verified it.
func memberCallers(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	id, ok := port.MemberFrom(ctx)
	if !ok {
		return nil, status.Error(codes.PermissionDenied, "this service is for the members of the cluster alone")
	}
	return handler(access.WithCaller(ctx, access.MemberCaller(id)), request)
}

// apiCredentials take the caller that the port has verified, in the form that [access.Guard] asks for.
type apiCredentials struct {
	credentials.TransportCredentials
}

// apiInfo is what the guard sees of a connection of the port.
type apiInfo struct{ port.AuthInfo }

// Caller implements [access.Identified].
func (i apiInfo) Caller() access.Caller {
	switch verified := i.AuthInfo.Caller; {
	case verified.Protocol == port.GRPC && !verified.SPIFFEID.IsZero():
		return access.SVIDCaller(verified.SPIFFEID)
	case verified.Protocol == port.Member && verified.MemberID != "":
		return access.MemberCaller(verified.MemberID)
	default:
		return access.Caller{}
	}
}

// ServerHandshake wraps what the port's credentials found.
func (c apiCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	verified, ok := info.(port.AuthInfo)
	if !ok {
		return nil, nil, fmt.Errorf("the port's credentials gave %T", info)
	}
	return conn, apiInfo{verified}, nil
}

// Clone implements [credentials.TransportCredentials].
func (c apiCredentials) Clone() credentials.TransportCredentials {
	return apiCredentials{c.TransportCredentials.Clone()}
}
