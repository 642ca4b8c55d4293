package workloadapi

import (
	"context"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/agent/cache"
	"github.com/ententehq/entente/agent/workload"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// Identifier attests the callers, and bounds how often each one calls.
type Identifier struct {
	Cache     *cache.Cache
	Attestors []workload.Attestor
	Logger    hclog.Logger
	// Attested is called after each attestation with its result, ok or failed, and with none when no entry is for an
	// attested process. It may be nil.
	Attested func(result string)

	once             sync.Once
	processes, users *lru.Cache[int64, *rate.Limiter]
}

const (
	// callRate and callBurst bound the calls of one process: a restart loop of a library calls a few times a second,
	// and a program that wants a token for each of its requests some hundred times.
	callRate, callBurst = 200, 400
	// userRate and userBurst bound those of all processes of one user, which can start new ones: a thousand workloads
	// that start together make four calls each.
	userRate, userBurst = 2000, 8000
	// maxLimiters bounds the memory for each kind of limit. The least recent one is forgotten.
	maxLimiters = 4096
)

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
	if !i.allow(p) {
		i.Logger.Warn("a workload calls too often", "pid", p.PID, "uid", p.UID, "method", method)
		return Caller{}, status.Errorf(codes.ResourceExhausted, "this process calls more than %d times a second, or "+
			"all of its user more than %d times: keep a stream open instead, or a token while it is valid", callRate,
			userRate)
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

// allow reports whether a process may call now.
func (i *Identifier) allow(p workload.Process) bool {
	i.once.Do(func() {
		i.processes, _ = lru.New[int64, *rate.Limiter](maxLimiters) // never fails
		i.users, _ = lru.New[int64, *rate.Limiter](maxLimiters)
	})
	return limiter(i.users, int64(p.UID), userRate, userBurst).Allow() &&
		limiter(i.processes, int64(p.PID), callRate, callBurst).Allow()
}

func limiter(of *lru.Cache[int64, *rate.Limiter], key int64, perSecond rate.Limit, burst int) *rate.Limiter {
	if l, ok := of.Get(key); ok {
		return l
	}
	l := rate.NewLimiter(perSecond, burst)
	if earlier, ok, _ := of.PeekOrAdd(key, l); ok {
		return earlier
	}
	return l
}

// Present returns what a caller receives now. It returns PermissionDenied if no entry is for the caller. changed is
// closed when the state changes after it was read; ready is false before the first SVID is there.
func (i *Identifier) Present(c Caller, method string) (s cache.State, changed <-chan struct{}, ready bool, err error) {
	changed = i.Cache.Changed()
	s, known := i.Cache.Of(c.Selectors)
	if known && !s.Registered {
		i.attested("none")
		i.Logger.Warn("a workload has no identity: no entry of this agent matches its selectors",
			"pid", c.Process.PID, "uid", c.Process.UID, "method", method,
			"selectors", strings.Join(c.Selectors, " "))
		return s, changed, false, errNoIdentity
	}
	return s, changed, len(s.Identities) > 0, nil
}

// Await returns what a caller receives, as soon as one of its SVIDs is there. It returns PermissionDenied if no entry
// is for the caller. changed is closed when the state changes after it was read.
func (i *Identifier) Await(
	ctx context.Context, c Caller, method string,
) (s cache.State, changed <-chan struct{}, err error) {
	for {
		s, changed, ready, err := i.Present(c, method)
		if err != nil || ready {
			return s, changed, err
		}
		select {
		case <-ctx.Done():
			return s, nil, status.FromContextError(ctx.Err()).Err()
		case <-changed:
		}
	}
}

// Rejected logs that a program has rejected resources.
func (i *Identifier) Rejected(ctx context.Context, t xdsupdate.Type, resources, reason string) {
	p, _ := workload.ProcessFrom(ctx)
	i.Logger.Warn("a program rejected resources and keeps those that it has", "pid", p.PID, "uid", p.UID,
		"type", t.Short(), "resources", resources, "reason", reason)
}

// Header verifies the security header, which a browser or a proxy that was tricked into a request does not send.
func Header(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if values := md.Get("workload.spiffe.io"); len(values) != 1 || values[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request: workload.spiffe.io: true")
	}
	return nil
}

// ServerOptions returns options that require the security header of the calls of the Workload API, and that bound the
// calls under way of each user, those of other services included.
func ServerOptions(shares *workload.Shares, logger hclog.Logger) []grpc.ServerOption {
	const service = "/SpiffeWorkloadAPI/"
	admit := func(ctx context.Context, method string) (leave func(), err error) {
		if strings.HasPrefix(method, service) {
			if err := Header(ctx); err != nil {
				return nil, err
			}
		}
		p, _ := workload.ProcessFrom(ctx)
		leave, ok := shares.Take(p.UID)
		if !ok {
			logger.Warn("a user has too many calls under way: another one is refused", "uid", p.UID, "pid", p.PID)
			return nil, status.Errorf(codes.ResourceExhausted, "user %d has as many calls under way as are left for "+
				"all others: end some", p.UID)
		}
		return leave, nil
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(
			ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
		) (any, error) {
			leave, err := admit(ctx, info.FullMethod)
			if err != nil {
				return nil, err
			}
			defer leave()
			return handler(ctx, request)
		}),
		grpc.ChainStreamInterceptor(func(
			server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
		) error {
			leave, err := admit(stream.Context(), info.FullMethod)
			if err != nil {
				return err
			}
			defer leave()
			return handler(server, stream)
		}),
	}
}
