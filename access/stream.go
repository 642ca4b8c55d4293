package access

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access/admission"
	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/access/record"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/repeat"
)

// stream is one open streaming call. The guard decides on it before its handler runs, without a request, again at its
// first message, and then after every change of grants.
type stream struct {
	grpc.ServerStream
	guard  *Guard
	caller Caller
	method string
	ctx    context.Context
	cancel context.CancelCauseFunc
	sent   int // the size of the last message sent; only the handler's goroutine that sends uses it

	mu      sync.Mutex
	request proto.Message // the first message received
	call    Call          // as of the last decision
	audit   *audit.Action
	// administrative is described once the first message has arrived.
	administrative *record.Call
	response       any // the last message sent
}

// Stream is the guard as an interceptor of streaming calls.
func (g *Guard) Stream(
	server any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) (err error) {
	caller := callerOf(ss.Context())
	begun := g.cfg.Now()
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	s := &stream{ServerStream: ss, guard: g, caller: caller, method: info.FullMethod, ctx: ctx, cancel: cancel}
	defer func() {
		if r := recover(); r != nil {
			err = panicked(g.cfg.Logger, info.FullMethod, r)
		}
		s.end(err)
		g.finished(info.FullMethod, caller, begun, err)
	}()
	g.open(s)
	defer g.close(s)
	if err := s.begin(ctx); err != nil {
		return err
	}
	err = handler(server, s)
	if cause := ended(ctx); cause != nil {
		return cause
	}
	return plainStatus(err)
}

// begin decides before the first message. It holds the lock, so a change of grants either precedes the decision or
// leads to another one.
func (s *stream) begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.guard.admit(s.method, s.caller, nil)
	if err != nil {
		return err
	}
	s.call = c
	if c.Rule.Audit == AuditedDurably {
		s.administrative = record.NewCall(s.guard.cfg.Store, s.guard.cfg.Now)
	}
	s.ctx = s.administrative.Context(withPermit(ctx, permit{c, s.guard.world()}))
	return nil
}

// ended returns the error with which the guard ended a stream, or nil.
func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	if _, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](cause); ok {
		return cause
	}
	return nil
}

// Context returns a context that carries the caller. It ends when the guard ends the stream.
func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg receives a message. At the first one, it decides on the call and audits it.
func (s *stream) RecvMsg(m any) error {
	if cause := ended(s.ctx); cause != nil {
		return cause
	}
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	admission.Received(s.ctx)
	if cause := ended(s.ctx); cause != nil {
		return cause
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	request, ok := m.(proto.Message)
	if s.request != nil || !ok {
		return nil
	}
	s.request = request
	c, err := s.guard.admit(s.method, s.caller, request)
	if err == nil {
		s.call = c
		s.audit, err = s.guard.begin(c)
	}
	switch {
	case err != nil || s.administrative == nil:
	case s.audit == nil: // a dry run
		s.administrative = nil
	default:
		describeTo(s.administrative, s.audit)
	}
	if err != nil {
		s.cancel(err)
	}
	return err
}

// SendMsg sends the part of a response that the caller may see. A caller that does not read it is disconnected.
func (s *stream) SendMsg(m any) error {
	if cause := ended(s.ctx); cause != nil {
		return cause
	}
	s.mu.Lock()
	c := s.call
	s.response = m
	s.mu.Unlock()
	if response, ok := m.(proto.Message); ok {
		m = pruned(c, s.guard.world(), response)
	}
	timer := time.AfterFunc(s.sendTimeout(), func() { s.guard.unread(s.ctx, s.method) })
	defer timer.Stop()
	if message, ok := m.(proto.Message); ok {
		s.sent = proto.Size(message)
	}
	return s.ServerStream.SendMsg(m)
}

// slowest is how many bytes a second a caller reads at least whose connection stays open.
const slowest = 4 << 10

// sendTimeout is the limit for the next message, which waits until the caller has read the one before.
func (s *stream) sendTimeout() time.Duration {
	return s.guard.cfg.SendTimeout + time.Duration(s.sent/slowest)*time.Second
}

// end records the outcome of the call.
func (s *stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.audit != nil {
		s.guard.recorded(s.ctx, s.administrative)
	}
	end(s.audit, s.response, nil, err)
}

// recheck decides on an open stream again. It ends the stream if it is no longer allowed, or if its responses would now
// be reduced differently: the reader must reopen it to get a consistent view.
func (s *stream) recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call.Method == "" || ended(s.ctx) != nil {
		return // there was no decision yet, or the stream has ended
	}
	c, err := s.guard.decide(s.method, s.caller, s.request)
	switch {
	case err != nil:
		s.guard.metrics.denied(s.method, ReasonRevoked)
		s.guard.cfg.Logger.Info("stream ended: its grant was revoked",
			"method", shortMethod(s.method), "caller", s.caller.String())
		s.cancel(&Refusal{ReasonRevoked, "the stream was ended because access to it was revoked: " + err.Error()})
	case (c.Rule.Prune != nil || c.Rule.Scoped) && !slices.Equal(c.Grants, s.call.Grants):
		s.cancel(status.Errorf(codes.Unavailable, "the grants of %s have changed: open the stream again", s.caller))
	default:
		s.call = c
	}
}

func (g *Guard) open(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.streams[s] = true
}

func (g *Guard) close(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.streams, s)
}

// Run rechecks open streams after every change of grants and of agents, writes the lines of the refusals of
// [Guard.Tap], and sums up refused calls in the audit log. It returns the error of the context when that ends.
func (g *Guard) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.recheckStreams(ctx) })
	group.Go(func() error { return g.refusals.run(ctx) })
	group.Go(func() error { return repeat.Sweep(ctx, g.cfg.Store, g.cfg.Now, g.cfg.Logger) })
	return group.Wait()
}

func (g *Guard) recheckStreams(ctx context.Context) error {
	over := []raftstore.Prefix{grant.Prefix()}
	if g.cfg.Agent != nil {
		over = append(over, g.cfg.Agents)
	}
	return feed.Latest(ctx, g.cfg.Store, over, func(*raftstore.View) error {
		g.mu.Lock()
		open := make([]*stream, 0, len(g.streams))
		for s := range g.streams {
			open = append(open, s)
		}
		g.mu.Unlock()
		for _, s := range open {
			s.recheck()
		}
		return nil
	})
}
