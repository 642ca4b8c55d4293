package access

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
)

// GuardConfig configures a [Guard]. All fields but Registerer, Logger and Now are required.
type GuardConfig struct {
	Store *raftstore.Store
	// Home is the home trust domain.
	Home spiffeid.TrustDomain
	// Hosted reports whether a trust domain is hosted, in the state of the reader. The guard calls it on every call and
	// within transactions, from many goroutines.
	Hosted     func(raftstore.Reader, spiffeid.TrustDomain) (bool, error)
	Log        *audit.Log
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Guard authenticates, authorizes and audits every gRPC call, by the rules of [Rules].
type Guard struct {
	cfg     GuardConfig
	metrics *metrics
	// denials limits the audit lines for refused calls, so a caller without any grant cannot fill the disk. The metric
	// counts all refused calls.
	denials *rate.Limiter

	mu      sync.Mutex
	streams map[*stream]bool
}

// Limits of audit lines for refused calls. They are enough for the mistakes of a person, and not for those of a
// program.
const (
	denialLinesPerSecond = 5
	denialLinesBurst     = 100
)

// NewGuard returns a guard. It ends streams whose grants are revoked while [Guard.Run] runs.
func NewGuard(cfg GuardConfig) (*Guard, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	cfg.Store.SurviveRestore("access", surviveRestore)
	return &Guard{
		cfg:     cfg,
		metrics: m,
		denials: rate.NewLimiter(denialLinesPerSecond, denialLinesBurst),
		streams: make(map[*stream]bool),
	}, nil
}

// ServerOptions returns the options that put the guard in front of a gRPC server. The AuthInfo of its connections must
// implement [Identified].
func (g *Guard) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(apierror.Unary, g.Unary),
		grpc.ChainStreamInterceptor(apierror.Stream, g.Stream),
	}
}

// Unary is the guard as an interceptor of unary calls.
func (g *Guard) Unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (response any, err error) {
	caller := callerOf(ctx)
	begun := g.cfg.Now()
	defer func() {
		if r := recover(); r != nil {
			response, err = nil, g.panicked(info.FullMethod, r)
		}
		g.finished(info.FullMethod, caller, begun, err)
	}()
	message, ok := request.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "%s received a request of type %T", shortMethod(info.FullMethod),
			request)
	}
	c, err := g.admit(info.FullMethod, caller, message)
	if err != nil {
		return nil, err
	}
	a, err := g.begin(c)
	if err != nil {
		return nil, err
	}
	world := g.world()
	response, err = func() (response any, err error) {
		defer func() {
			if r := recover(); r != nil {
				response, err = nil, g.panicked(info.FullMethod, r)
			}
		}()
		return handler(withPermit(ctx, permit{c, world}), request)
	}()
	end(a, response, err)
	if err != nil {
		return nil, plainStatus(err)
	}
	if m, ok := response.(proto.Message); ok {
		response = pruned(c, world, m)
	}
	return response, nil
}

// callerOf returns the caller of the connection.
func callerOf(ctx context.Context) Caller {
	if p, ok := peer.FromContext(ctx); ok {
		if i, ok := p.AuthInfo.(Identified); ok {
			return i.AccessCaller()
		}
	}
	return Caller{}
}

// admit decides on a call. It counts a refusal, and audits it if the method is audited.
func (g *Guard) admit(method string, caller Caller, request proto.Message) (Call, error) {
	c, err := g.decide(method, caller, request)
	if err != nil {
		g.refused(c, err)
	}
	return c, err
}

// decide decides by this member's state. A nil request means that a stream has received no message yet.
func (g *Guard) decide(method string, caller Caller, request proto.Message) (Call, error) {
	c := Call{Method: method, Caller: caller}
	rule, ok := rules[method]
	if !ok {
		return c, &Refusal{ReasonNoRule, fmt.Sprintf("%s cannot be called here", shortMethod(method))}
	}
	c.Rule = rule
	switch {
	case request == nil: // only the role can be checked
		c.Rule = rule.early()
	case rule.Target != nil:
		c.Target = rule.Target(request)
	}
	grants, err := g.grantsOf(caller)
	if err != nil {
		return c, status.Errorf(codes.Internal, "read the grants of %s: %v", caller, err)
	}
	c.Grants = grants
	return c, Decide(c, g.world())
}

// world returns the state of the cluster as this member has it now.
func (g *Guard) world() World {
	return World{Home: g.cfg.Home, Hosted: func(td spiffeid.TrustDomain) bool {
		hosted, err := g.cfg.Hosted(g.cfg.Store.View(), td)
		if err != nil {
			g.cfg.Logger.Error("cannot read whether a trust domain is hosted; it is treated as hosted, which "+
				"requires more", "trust_domain", td.Name(), "error", err)
			return true
		}
		return hosted
	}}
}

// refused counts a refusal and audits it.
func (g *Guard) refused(c Call, err error) {
	var r *Refusal
	if !errors.As(err, &r) {
		return
	}
	g.metrics.denied(c.Method, r.Reason)
	g.cfg.Logger.Info("call refused",
		"method", shortMethod(c.Method), "caller", c.Caller.String(), "reason", string(r.Reason))
	if c.Rule.Audit == Unaudited || !g.denials.AllowN(g.cfg.Now(), 1) {
		return
	}
	// The call is refused even if the line cannot be written; Record logs that error.
	_ = g.cfg.Log.Record(audit.Event{
		Caller: c.Caller.String(), Action: shortMethod(c.Method), Object: c.Target.Object,
		Result: audit.ResultDenied, Detail: string(r.Reason),
	})
}

// begin writes the line before a call, and refuses a call that cannot be audited. It returns nil for a call that needs
// no lines.
func (g *Guard) begin(c Call) (*audit.Action, error) {
	if c.Rule.Audit != Audited && c.Rule.Audit != AuditedDurably {
		return nil, nil
	}
	a, err := audit.Begin(g.cfg.Log, audit.Event{
		Caller: c.Caller.String(), Action: shortMethod(c.Method), Object: c.Target.Object,
		Call: rand.Text()[:12], Durable: c.Rule.Audit == AuditedDurably,
	})
	if err != nil {
		g.metrics.denied(c.Method, ReasonUnaudited)
		return nil, &Refusal{ReasonUnaudited, err.Error()}
	}
	return a, nil
}

// end writes the line after a call, if the call has lines.
func end(a *audit.Action, response any, err error) {
	if a == nil {
		return
	}
	line := &a.Lines[0]
	if err != nil {
		s := status.Convert(plainStatus(err))
		line.Detail = s.Code().String() + ": " + s.Message()
	} else if r, ok := response.(interface{ GetRevision() uint64 }); ok {
		line.Revision = r.GetRevision()
	}
	_ = a.End(err) // it is the error of the call
}

// pruned returns the part of a response that the caller may see.
func pruned(c Call, w World, response proto.Message) proto.Message {
	if c.Rule.Prune == nil {
		return response
	}
	keep := visible(c, w)
	if keep == nil {
		return response
	}
	return c.Rule.Prune(response, keep)
}

// panicked logs a panic, and returns an error that discloses nothing about it.
func (g *Guard) panicked(method string, reason any) error {
	g.cfg.Logger.Error("a call panicked: this is a defect, please report it",
		"method", shortMethod(method), "panic", reason, "stack", string(debug.Stack()))
	return status.Errorf(codes.Internal, "%s failed by a defect of the server: its log has the details",
		shortMethod(method))
}

// finished counts a call and logs it, without its content.
func (g *Guard) finished(method string, caller Caller, begun time.Time, err error) {
	code := status.Code(plainStatus(err))
	g.metrics.called(method, code)
	if g.cfg.Logger.IsDebug() {
		g.cfg.Logger.Debug("call", "method", shortMethod(method), "caller", caller.String(),
			"code", code.String(), "took", g.cfg.Now().Sub(begun))
	}
}

// plainStatus returns an error with a gRPC status: its own, that of a store error, or that of a context error.
func plainStatus(err error) error { return raftstore.StatusError(err) }
