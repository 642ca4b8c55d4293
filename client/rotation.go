package client

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/internal/apierror"
)

// rotation is the order in which the members are tried. A member that was just started accepts connections and serves
// nothing, so that gRPC alone would stay with it: with each turn, the client leaves the connection that it has, and the
// first member of the order becomes the last one.
type rotation struct {
	resolver *manual.Resolver

	mu        sync.Mutex         // held while the resolver is updated
	addresses []resolver.Address // in the given order
	turns     atomic.Uint64      // made so far
	turned    atomic.Bool        // the order is not the given one
}

// turnKey is the attribute of an address that changes with every turn: gRPC keeps a connection to an address that stays
// in the list as it was.
type turnKey struct{}

// replace replaces the members. The present connection stays if it is to one of the new ones.
func (r *rotation) replace(addresses []resolver.Address) {
	r.mu.Lock()
	defer r.mu.Unlock()
	same := func(a, b resolver.Address) bool { return a.Addr == b.Addr }
	if slices.EqualFunc(r.addresses, addresses, same) {
		return
	}
	r.addresses = addresses
	r.turned.Store(false)
	r.update(r.turns.Load(), slices.Clone(addresses))
}

func (r *rotation) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.addresses)
}

// next makes a turn, unless there was one since the call began.
func (r *rotation) next(since uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.addresses) < 2 || r.turns.Load() != since {
		return
	}
	turns := r.turns.Add(1)
	r.turned.Store(true)
	first := int(turns % uint64(len(r.addresses))) //nolint:gosec // G115: less than the number of addresses
	r.update(turns, slices.Concat(r.addresses[first:], r.addresses[:first]))
}

// settle returns to the given order for the time after the present connection, which stays: a member has served.
func (r *rotation) settle() {
	if !r.turned.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turned.Swap(false) {
		r.update(r.turns.Load(), slices.Clone(r.addresses))
	}
}

// update sets the order. The caller holds r.mu.
func (r *rotation) update(turns uint64, addresses []resolver.Address) {
	for i := range addresses {
		addresses[i].Attributes = attributes.New(turnKey{}, turns)
	}
	r.resolver.UpdateState(resolver.State{Addresses: addresses})
}

// isStarting reports whether a member answered that it was just started. It has not executed the call.
func isStarting(err error) bool {
	return err != nil && apierror.Reason(status.Convert(err)) == apierror.Starting
}

// unary repeats a call at the other members while members answer that they are starting.
func (r *rotation) unary(
	ctx context.Context, method string, request, response any, conn *grpc.ClientConn, call grpc.UnaryInvoker,
	options ...grpc.CallOption,
) (err error) {
	for range r.size() {
		turns := r.turns.Load()
		if err = call(ctx, method, request, response, conn, options...); !isStarting(err) {
			if err == nil {
				r.settle()
			}
			return err
		}
		r.next(turns)
	}
	return err
}

func (r *rotation) stream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer,
	options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	turns := r.turns.Load()
	stream, err := open(ctx, desc, conn, method, options...)
	if err != nil {
		if isStarting(err) {
			r.next(turns)
		}
		return nil, err
	}
	return &rotatingStream{stream, r, turns}, nil
}

// rotatingStream makes a turn if the member answers that it is starting.
type rotatingStream struct {
	grpc.ClientStream
	rotation *rotation
	turns    uint64
}

// RecvMsg implements grpc.ClientStream.
func (s *rotatingStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err == nil:
		s.rotation.settle()
	case isStarting(err):
		s.rotation.next(s.turns)
	}
	return err
}
