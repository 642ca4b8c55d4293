package admission

import (
	"context"
	"sync/atomic"
	"time"
)

// reception is the context of a call until its first message was received. It ends if that takes too long.
type reception struct {
	context.Context
	ticket  *Ticket // nil if the call was not counted
	timer   *time.Timer
	expired atomic.Bool
}

type receptionKey struct{}

// Receive returns a context for a call whose first message has to be received within limit. Unless [Received] is called
// by then, the context ends, and expired is called. The ticket, which can be nil, ends with the context.
func Receive(ctx context.Context, t *Ticket, limit time.Duration, expired func()) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	r := &reception{ticket: t}
	r.Context = context.WithValue(ctx, receptionKey{}, r)
	r.timer = time.AfterFunc(limit, func() {
		r.expired.Store(true)
		cancel()
		expired()
	})
	context.AfterFunc(ctx, func() { r.timer.Stop(); cancel(); t.Leave() })
	return r
}

// Err returns [context.DeadlineExceeded] if the first message was not received in time.
func (r *reception) Err() error {
	if err := r.Context.Err(); err == nil || !r.expired.Load() {
		return err
	}
	return context.DeadlineExceeded
}

// Received ends the time limit of the first message, and returns the ticket of the call, or nil.
func Received(ctx context.Context) *Ticket {
	r, ok := ctx.Value(receptionKey{}).(*reception)
	if !ok {
		return nil
	}
	r.timer.Stop()
	return r.ticket
}
