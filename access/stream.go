package access

import (
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
)

// stream is one open streaming call. It is decided on twice: before its handler runs, by what is known without a
// request, and at its first message, by what that is about. After that it is decided on again whenever grants change.
type stream struct {
	grpc.ServerStream
	guard  *Guard
	caller Caller
	method string
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	request proto.Message // the first that came
	call    Call          // as last decided
	audit   *audit.Action
	answer  any // the last that was sent
}

// Stream is the guard as an interceptor of streaming calls.
func (g *Guard) Stream(server any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	caller := callerOf(ss.Context())
	begun := g.cfg.Now()
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	s := &stream{ServerStream: ss, guard: g, caller: caller, method: info.FullMethod, ctx: ctx, cancel: cancel}
	defer func() {
		if r := recover(); r != nil {
			err = g.panicked(info.FullMethod, r)
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
	if why := ended(ctx); why != nil {
		return why
	}
	return plainStatus(err)
}

// begin decides by what is known before the first message. It holds the lock meanwhile, so that a change of grants
// falls either before the decision or leads to another one.
func (s *stream) begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.guard.admit(s.method, s.caller, nil)
	if err != nil {
		return err
	}
	s.call = c
	s.ctx = withPermit(ctx, permit{c, s.guard.world()})
	return nil
}

// ended is why the guard ended a stream; nil if it did not.
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

// Context carries the caller, and ends when the guard ends the stream.
func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg decides on the first message, and audits the call then.
func (s *stream) RecvMsg(m any) error {
	if why := ended(s.ctx); why != nil {
		return why
	}
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if why := ended(s.ctx); why != nil {
		return why
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
	if err != nil {
		s.cancel(err)
	}
	return err
}

// SendMsg sends what the caller may see of an answer.
func (s *stream) SendMsg(m any) error {
	if why := ended(s.ctx); why != nil {
		return why
	}
	s.mu.Lock()
	c := s.call
	s.answer = m
	s.mu.Unlock()
	if answer, ok := m.(proto.Message); ok {
		m = pruned(c, s.guard.world(), answer)
	}
	return s.ServerStream.SendMsg(m)
}

// end audits how the call ended.
func (s *stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end(s.audit, s.answer, err)
}

// recheck decides on an open stream again. It ends one that is not allowed any more, and one whose answers would be
// cut down otherwise than before: its reader has to begin anew to know what it sees.
func (s *stream) recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call.Method == "" || ended(s.ctx) != nil {
		return // not decided on yet, or over
	}
	c, err := s.guard.decide(s.method, s.caller, s.request)
	switch {
	case err != nil:
		s.guard.metrics.denied(s.method, ReasonRevoked)
		s.guard.cfg.Logger.Info("stream ended, for its grant is gone", "method", shortMethod(s.method), "caller", s.caller.String())
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

// Run ends streams whose grants go away, until the context ends, whose error it then returns.
func (g *Guard) Run(ctx context.Context) error {
	return feed.Latest(ctx, g.cfg.Store, []raftstore.Prefix{grants.Prefix("")}, func(*raftstore.View) error {
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
