package node

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/node/port"
)

// fellowOptions tell the services for members which member calls. There is nothing to decide: the port lets only present
// members in under its protocol for them, and what they may ask each other is the services' own matter.
func fellowOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return handler(withFellow(ctx), request)
		}),
	}
}

func withFellow(ctx context.Context) context.Context {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx
	}
	verified, ok := p.AuthInfo.(port.AuthInfo)
	if !ok {
		return ctx
	}
	return access.WithCaller(ctx, verified.AccessCaller())
}
