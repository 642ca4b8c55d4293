package access

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access/admission"
	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/access/record"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
)

// GuardConfig configures a [Guard]. All fields before Logger are required.
type GuardConfig struct {
	Store *raftstore.Store
	// Home is the home trust domain.
	Home spiffeid.TrustDomain
	// Hosted reports whether a trust domain is hosted, in the state of the reader. The guard calls it on every call and
	// within transactions, from many goroutines.
	Hosted func(raftstore.Reader, spiffeid.TrustDomain) (bool, error)
	// Direct reports whether the cluster hosts a trust domain or has a relationship of its own with it. Callers of
	// other domains are known by the attestation of a hub, which could issue itself their IDs: their grants of the
	// roles admin, operator, issuer and peer do not count. If nil, every domain is direct. It is called as Hosted is.
	Direct func(raftstore.Reader, spiffeid.TrustDomain) (bool, error)
	// Agent reports whether the agent with an ID is attested with a key, of which it gets the SHA-256 of the
	// SubjectPublicKeyInfo, and not banned. Agents is the prefix of the table that decides it. If nil, there are no
	// agents. It is called as Hosted is.
	Agent  func(r raftstore.Reader, id spiffeid.ID, key [32]byte) (bool, error)
	Agents raftstore.Prefix
	// Dependents returns the effects of the revocation of a grant on what its holder wrote in other rooms, by the state
	// of the reader before it. If nil, there are none.
	Dependents func(r raftstore.Reader, revoked grant.Grant) ([]*ententev1.Effect, error)
	// LongestSVID returns how long an SVID of a hosted trust domain can be valid that is issued before this member's
	// state reaches the others. If nil, new grants have no warnings.
	LongestSVID func(raftstore.Reader, spiffeid.TrustDomain) (time.Duration, error)
	// Members returns the IDs of the members, and Conn the connection to one, for the audit logs of all. If nil, the
	// log of this member alone can be read.
	Members    func() []string
	Conn       func(memberID string) (grpc.ClientConnInterface, error)
	Log        *audit.Log
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
	// ReceiveTimeout is the limit for receiving the first message of a call. If 0, it is 10 s.
	ReceiveTimeout time.Duration
	// SendTimeout is the limit for a message of a stream that its caller does not read. If 0, it is a minute.
	SendTimeout time.Duration
}

// Guard authenticates, authorizes and audits every gRPC call, by the rules of [Rules].
type Guard struct {
	cfg       GuardConfig
	metrics   *metrics
	refusals  *refusals
	admission *admission.Control
	grants    grant.Cache

	mu      sync.Mutex
	streams map[*stream]bool
}

// NewGuard returns a guard. It ends streams whose grants are revoked while [Guard.Run] runs.
func NewGuard(cfg GuardConfig) (*Guard, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.ReceiveTimeout == 0 {
		cfg.ReceiveTimeout = receiveTimeout
	}
	if cfg.SendTimeout == 0 {
		cfg.SendTimeout = sendTimeout
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	limits := admission.New(admission.Capacities(runtime.GOMAXPROCS(0)))
	if err := registerAll(cfg.Registerer, limits.Collector()); err != nil {
		return nil, err
	}
	cfg.Store.Snapshots().Survive("access", grant.SurviveRestore)
	record.Register(cfg.Store)
	repeat.Register(cfg.Store)
	return &Guard{
		cfg:       cfg,
		metrics:   m,
		refusals:  newRefusals(cfg, m),
		admission: limits,
		streams:   make(map[*stream]bool),
	}, nil
}

// ServerOptions returns the options that put the guard in front of a gRPC server. The AuthInfo of its connections must
// implement [Identified].
func (g *Guard) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InTapHandle(g.Tap),
		grpc.ChainUnaryInterceptor(apierror.Unary, g.Unary),
		grpc.ChainStreamInterceptor(apierror.Stream, g.Stream),
	}
}

// receiveTimeout is the limit for receiving the first message of a call, which is the only one of a unary call. A
// message has at most 2 MiB.
const receiveTimeout = 10 * time.Second

// sendTimeout is the limit for a message of a stream that its caller does not read. gRPC holds some 64 KiB of unread
// messages of a stream, and the message that waits.
const sendTimeout = time.Minute

// Unreadable is implemented by the credentials.AuthInfo of a connection that is closed when a stream on it is not read.
// The end of the stream alone would leave in memory what was not read, as long as the connection stands. Unread must
// not block.
type Unreadable interface {
	Unread()
}

// Refusable is implemented by the credentials.AuthInfo of a connection that is closed when calls on it are refused
// repeatedly. Refused is called for each call that is refused before its message is read, and must not block.
type Refusable interface {
	Refused()
}

// Tap is the guard as a [tap.ServerInHandle]. It refuses a call that no message could make permissible, such as that of
// a caller without a grant for the method, before gRPC reads or buffers any of the message, and calls for which there
// is no room. It reads memory only, and writes nothing: [Guard.Run] records the refusal. For an admitted call it starts
// the time limit of the first message.
func (g *Guard) Tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	caller := callerOf(ctx)
	c, err := g.decide(info.FullMethodName, caller, nil)
	if err == nil {
		var t *admission.Ticket
		if t, err = g.enter(c); err != nil {
			g.metrics.called(info.FullMethodName, status.Code(err))
			return ctx, apierror.Complete(err, nil)
		}
		tooSlow := func() { g.metrics.denied(info.FullMethodName, ReasonSlow) }
		return admission.Receive(ctx, t, g.cfg.ReceiveTimeout, tooSlow), nil
	}
	g.metrics.called(info.FullMethodName, status.Code(err))
	g.refusals.writeLater(g.refusals.count(c, err))
	if p, ok := peer.FromContext(ctx); ok {
		if r, ok := p.AuthInfo.(Refusable); ok {
			r.Refused()
		}
	}
	return ctx, apierror.Complete(err, nil)
}

// unread closes the connection of a stream whose caller does not read what it watches.
func (g *Guard) unread(ctx context.Context, method string) {
	g.metrics.denied(method, ReasonSlow)
	if p, ok := peer.FromContext(ctx); ok {
		if u, ok := p.AuthInfo.(Unreadable); ok {
			u.Unread()
		}
	}
}

// enter counts a call among those under way. Calls on the admin socket are not counted. Streams of other clusters are
// counted by trust domain.
func (g *Guard) enter(c Call) (*admission.Ticket, error) {
	load, by := loadOf(c.Method, c.Rule), c.Caller
	if by.Kind() == Socket {
		return nil, nil
	}
	if id, ok := by.SPIFFEID(); ok && load == admission.Peering {
		by = SVIDCaller(id.TrustDomain().ID())
	}
	return g.admission.Enter(load, by.known())
}

// Unary is the guard as an interceptor of unary calls.
func (g *Guard) Unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (response any, err error) {
	t := admission.Received(ctx)
	caller := callerOf(ctx)
	begun := g.cfg.Now()
	defer func() {
		if r := recover(); r != nil {
			response, err = nil, panicked(g.cfg.Logger, info.FullMethod, r)
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
	done, err := t.Run(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	repeatable, err := repeat.New(g.cfg.Store, g.cfg.Now, caller.account(), info.FullMethod, message)
	if err != nil {
		return nil, err
	}
	a, err := g.begin(c)
	if err != nil {
		return nil, err
	}
	administrative := g.administrative(c, a)
	world := g.world()
	handle := func(ctx context.Context) (response any, err error) {
		defer func() {
			if r := recover(); r != nil {
				response, err = nil, panicked(g.cfg.Logger, info.FullMethod, r)
			}
		}()
		return handler(ctx, request)
	}
	permitted := withPermit(ctx, permit{c, world})
	earlier, err := repeatable.Earlier(g.cfg.Store.View())
	if err == nil && earlier == nil {
		response, err = handle(repeatable.Context(administrative.Context(permitted)))
		if err == nil {
			g.recorded(ctx, administrative)
		} else if e, other := repeatable.Earlier(g.cfg.Store.View()); e != nil || other != nil {
			earlier, err = e, other // it was made at the same time, or this member had not applied it
		}
	}
	if earlier != nil {
		response, err = handle(repeat.Answering(permitted, earlier))
		err = repeat.Gone(err)
	}
	end(a, response, earlier, err)
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
		g.refusals.write(g.refusals.count(c, err))
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
		if c.Target = rule.Target(request); c.Target.Roles != nil {
			c.Rule.Roles = c.Target.Roles
		}
	}
	if dry, ok := request.(interface{ GetDryRun() bool }); ok && dry.GetDryRun() {
		c.Rule.Audit = Unaudited // it changes nothing
	}
	var err error
	if c.Grants, c.Attested, err = g.countingGrants(caller); err != nil {
		return c, status.Errorf(codes.Internal, "read the grants of %s: %v", caller, err)
	}
	return c, Decide(c, g.world())
}

// world returns the state of the cluster as this member has it now.
func (g *Guard) world() World {
	w := g.cfg.world(nil, func(id spiffeid.ID) ([]grant.Grant, error) { return g.grants.Of(g.cfg.Store.View(), id) })
	w.Agent = g.cfg.isAgent
	return w
}

// world returns the state of the cluster that a reader has, or that this member has at each question if r is nil. It
// has no agents.
func (c GuardConfig) world(r raftstore.Reader, grantsOf func(spiffeid.ID) ([]grant.Grant, error)) World {
	return World{
		Home: c.Home, GrantsOf: grantsOf,
		Hosted: func(td spiffeid.TrustDomain) bool {
			of := r
			if of == nil {
				of = c.Store.View()
			}
			hosted, err := c.Hosted(of, td)
			if err != nil {
				c.Logger.Error("cannot read whether a trust domain is hosted; it is treated as hosted, which "+
					"requires more", "trust_domain", td.Name(), "error", err)
				return true
			}
			return hosted
		},
	}
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
func panicked(log hclog.Logger, method string, reason any) error {
	log.Error("a call panicked: this is a defect, please report it",
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
