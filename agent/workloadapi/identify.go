package workloadapi

import (
	"context"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/agent/cache"
	"github.com/ententehq/entente/agent/workload"
)

// Identifier attests the callers, and bounds how often each one calls.
type Identifier struct {
	Cache     *cache.Cache
	Attestors []workload.Attestor
	Logger    hclog.Logger
	// Attested is called after each attestation with its result, ok or failed, and with none when no entry is for an
	// attested process. It may be nil.
	Attested func(result string)

	mu       sync.Mutex
	limiters map[source]*rate.Limiter
}

const (
	// callRate and callBurst bound the calls of one process: a restart loop of a library calls a few times a second,
	// and a program that wants a token for each of its requests some hundred times.
	callRate, callBurst = 200, 400
	// maxSources bounds the memory for limits. At the limit all are forgotten.
	maxSources = 4096
)

// source is whose calls are counted together.
type source struct {
	uid uint32
	pid int32
}

// errNoIdentity is what a caller without an identity has. It is the same for every reason.
var errNoIdentity = status.Error(codes.PermissionDenied, "no identity issued")

// Caller is an attested workload.
type Caller struct {
	Process   workload.Process
	Selectors []string
}

// Identify returns the caller of a gRPC call.
func (i *Identifier) Identify(ctx context.Context, method string) (Caller, error) {
	p, ok := workload.ProcessFrom(ctx)
	if !ok {
		return Caller{}, status.Error(codes.Internal, "the connection has no process")
	}
	if !i.limiter(source{p.UID, p.PID}).Allow() {
		i.Logger.Warn("a workload calls too often", "pid", p.PID, "uid", p.UID, "method", method)
		return Caller{}, status.Errorf(codes.ResourceExhausted, "this process calls more than %d times a second: "+
			"keep a stream open instead, or a token while it is valid", callRate)
	}
	selectors, err := workload.Attest(ctx, p, i.Attestors)
	if err != nil {
		i.attested("failed")
		i.Logger.Warn("a workload could not be attested", "pid", p.PID, "uid", p.UID, "method", method, "error", err)
		return Caller{}, errNoIdentity
	}
	i.attested("ok")
	return Caller{Process: p, Selectors: selectors}, nil
}

func (i *Identifier) attested(result string) {
	if i.Attested != nil {
		i.Attested(result)
	}
}

func (i *Identifier) limiter(of source) *rate.Limiter {
	i.mu.Lock()
	defer i.mu.Unlock()
	l := i.limiters[of]
	if l == nil {
		if len(i.limiters) >= maxSources || i.limiters == nil {
			i.limiters = map[source]*rate.Limiter{}
		}
		l = rate.NewLimiter(callRate, callBurst)
		i.limiters[of] = l
	}
	return l
}

// Await returns what a caller receives, as soon as one of its SVIDs is there. It returns PermissionDenied if no entry
// is for the caller. changed is closed when the state changes after it was read.
func (i *Identifier) Await(
	ctx context.Context, c Caller, method string,
) (s cache.State, changed <-chan struct{}, err error) {
	for {
		changed = i.Cache.Changed()
		s, known := i.Cache.Of(c.Selectors)
		switch {
		case known && !s.Registered:
			i.attested("none")
			i.Logger.Warn("a workload has no identity: no entry of this agent matches its selectors",
				"pid", c.Process.PID, "uid", c.Process.UID, "method", method,
				"selectors", strings.Join(c.Selectors, " "))
			return s, nil, errNoIdentity
		case len(s.Identities) > 0:
			return s, changed, nil
		}
		select {
		case <-ctx.Done():
			return s, nil, status.FromContextError(ctx.Err()).Err()
		case <-changed:
		}
	}
}

// Header verifies the security header, which a browser or a proxy that was tricked into a request does not send.
func Header(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if values := md.Get("workload.spiffe.io"); len(values) != 1 || values[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request: workload.spiffe.io: true")
	}
	return nil
}

// ServerOptions returns options that require the security header of the calls of the Workload API.
func ServerOptions() []grpc.ServerOption {
	const service = "/SpiffeWorkloadAPI/"
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(
			ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
		) (any, error) {
			if strings.HasPrefix(info.FullMethod, service) {
				if err := Header(ctx); err != nil {
					return nil, err
				}
			}
			return handler(ctx, request)
		}),
		grpc.ChainStreamInterceptor(func(
			server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
		) error {
			if strings.HasPrefix(info.FullMethod, service) {
				if err := Header(stream.Context()); err != nil {
					return err
				}
			}
			return handler(server, stream)
		}),
	}
}
