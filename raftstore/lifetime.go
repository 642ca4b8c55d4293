package raftstore

import (
	"context"
	"sync"
)

// lifetime is the time that a store is open. It ends its goroutines and waits for them.
type lifetime struct {
	ctx    context.Context // ends when the store is closed
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	group  sync.WaitGroup
}

func newLifetime() *lifetime {
	l := &lifetime{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Go runs a function in a goroutine, unless the store is closed, and reports whether it does.
func (l *lifetime) Go(run func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.group.Go(run)
	return true
}

// wait lets no more goroutines begin, and waits for those that have.
func (l *lifetime) wait() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.group.Wait()
}

// done is closed when the store is closed.
func (l *lifetime) done() <-chan struct{} { return l.ctx.Done() }

// check returns why a call cannot go on: the store is closed, or its context has ended.
func (l *lifetime) check(ctx context.Context) error {
	if l.ctx.Err() != nil {
		return ErrClosed
	}
	return ctx.Err()
}

// until derives a context that also ends when the store is closed.
func (l *lifetime) until(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(l.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// orClosed replaces an error that is due to the closing of the store.
func (l *lifetime) orClosed(err error) error {
	if err != nil && l.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}
