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

// GuardConfig is what a guard needs. All but Registerer, Logger and Now is required.
type GuardConfig struct {
	Store *raftstore.Store
	// Home is the home trust domain.
	Home spiffeid.TrustDomain
	// Hosted reports whether a trust domain is hosted, in the state that the reader shows. It is called within
	// transactions and on every call, from many goroutines.
	Hosted     func(raftstore.Reader, spiffeid.TrustDomain) (bool, error)
	Log        *audit.Log
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Guard stands before every gRPC call: who is it, may he, and is it in the audit log. Its rules are [Rules].
type Guard struct {
	cfg     GuardConfig
	metrics *metrics
	// denials bounds how often refused calls are written to the audit log, so that a caller without any right cannot
	// fill the disk with them. All are counted in the metric.
	denials *rate.Limiter

	mu      sync.Mutex
	streams map[*stream]bool
}

// Refused calls in the audit log: a person's mistakes, not a program's.
const (
	denialLinesPerSecond = 5
	denialLinesBurst     = 100
)

// NewGuard makes a guard. Streams end with their grants while [Guard.Run] runs.
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

// ServerOptions put the guard before every call of a gRPC server, whose connections have to be [Identified].
func (g *Guard) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(apierror.Unary, g.Unary), grpc.ChainStreamInterceptor(apierror.Stream, g.Stream),
	}
}

// Unary is the guard as an interceptor of unary calls.
func (g *Guard) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	caller := callerOf(ctx)
	begun := g.cfg.Now()
	defer func() {
		if r := recover(); r != nil {
			answer, err = nil, g.panicked(info.FullMethod, r)
		}
		g.finished(info.FullMethod, caller, begun, err)
	}()
	message, ok := request.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "%s came with a request of type %T", shortMethod(info.FullMethod), request)
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
	answer, err = func() (answer any, err error) {
		defer func() {
			if r := recover(); r != nil {
				answer, err = nil, g.panicked(info.FullMethod, r)
			}
		}()
		return handler(withPermit(ctx, permit{c, world}), request)
	}()
	end(a, answer, err)
	if err != nil {
		return nil, plainStatus(err)
	}
	if m, ok := answer.(proto.Message); ok {
		answer = pruned(c, world, m)
	}
	return answer, nil
}

// callerOf takes the caller from the connection, and from nothing else.
func callerOf(ctx context.Context) Caller {
	if p, ok := peer.FromContext(ctx); ok {
		if i, ok := p.AuthInfo.(Identified); ok {
			return i.AccessCaller()
		}
	}
	return Caller{}
}

// admit decides on a call. A refusal is counted, and for what would have changed something also audited.
func (g *Guard) admit(method string, caller Caller, request proto.Message) (Call, error) {
	c, err := g.decide(method, caller, request)
	if err != nil {
		g.refused(c, err)
	}
	return c, err
}

// decide decides by this member's state. A nil request stands for one that has not come yet.
func (g *Guard) decide(method string, caller Caller, request proto.Message) (Call, error) {
	c := Call{Method: method, Caller: caller}
	rule, ok := rules[method]
	if !ok {
		return c, &Refusal{ReasonNoRule, fmt.Sprintf("%s cannot be called here", shortMethod(method))}
	}
	c.Rule = rule
	switch {
	case request == nil: // a stream that begins: only the role can be told
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

// world is the cluster as this member knows it now.
func (g *Guard) world() World {
	return World{Home: g.cfg.Home, Hosted: func(td spiffeid.TrustDomain) bool {
		hosted, err := g.cfg.Hosted(g.cfg.Store.View(), td)
		if err != nil {
			g.cfg.Logger.Error("cannot tell whether a trust domain is hosted; taken for hosted, which needs the more", "trust_domain", td.Name(), "error", err)
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
	g.cfg.Logger.Info("call refused", "method", shortMethod(c.Method), "caller", c.Caller.String(), "reason", string(r.Reason))
	if c.Rule.Audit == Unaudited || !g.denials.AllowN(g.cfg.Now(), 1) {
		return
	}
	// A refusal stands whether it can be recorded or not; Record has logged why it could not.
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
func end(a *audit.Action, answer any, err error) {
	if a == nil {
		return
	}
	line := &a.Lines[0]
	if err != nil {
		s := status.Convert(plainStatus(err))
		line.Detail = s.Code().String() + ": " + s.Message()
	} else if r, ok := answer.(interface{ GetRevision() uint64 }); ok {
		line.Revision = r.GetRevision()
	}
	_ = a.End(err) // it is the error of the call
}

// pruned is the answer as the caller may see it.
func pruned(c Call, w World, answer proto.Message) proto.Message {
	if c.Rule.Prune == nil {
		return answer
	}
	keep := shows(c, w)
	if keep == nil {
		return answer
	}
	return c.Rule.Prune(answer, keep)
}

// panicked turns a panic into an error that tells the caller nothing of the inside.
func (g *Guard) panicked(method string, reason any) error {
	g.cfg.Logger.Error("a call panicked: this is a defect, please report it", "method", shortMethod(method), "panic", reason, "stack", string(debug.Stack()))
	return status.Errorf(codes.Internal, "%s failed by a defect of the server: its log has the details", shortMethod(method))
}

// finished counts a call and logs that it was made; never what was in it.
func (g *Guard) finished(method string, caller Caller, begun time.Time, err error) {
	code := status.Code(plainStatus(err))
	g.metrics.called(method, code)
	if g.cfg.Logger.IsDebug() {
		g.cfg.Logger.Debug("call", "method", shortMethod(method), "caller", caller.String(), "code", code.String(), "took", g.cfg.Now().Sub(begun))
	}
}

// plainStatus gives an error its gRPC status: its own, or that of the store's error, or of the context's.
func plainStatus(err error) error { return raftstore.StatusError(err) }
