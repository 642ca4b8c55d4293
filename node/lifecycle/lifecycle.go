// Package lifecycle starts the parts of a member in order, and stops them in reverse order. It waits for each part to
// end before it stops the one below. Each part is a function that runs until its context ends; a part that ends earlier
// is a failure, which [Lifecycle.Failed] delivers.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Lifecycle holds the started parts of a member, in order.
type Lifecycle struct {
	log    hclog.Logger
	failed chan error // holds the first failure

	mu     sync.Mutex
	parts  []part
	values context.Context // nil: none
}

type part struct {
	name   string
	cancel func() // nil: the part has no goroutine
	stop   func() error
}

// New returns a lifecycle without parts.
func New(log hclog.Logger) *Lifecycle {
	return &Lifecycle{log: log, failed: make(chan error, 1)}
}

// Values gives the values of ctx to the contexts of the parts that are started from now on.
func (l *Lifecycle) Values(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values = context.WithoutCancel(ctx)
}

// Fail reports a failure. Failures after the first are dropped.
func (l *Lifecycle) Fail(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// Start runs a part in a goroutine until Stop ends its context.
func (l *Lifecycle) Start(name string, run func(ctx context.Context) error) {
	l.mu.Lock()
	base := l.values
	l.mu.Unlock()
	if base == nil {
		base = context.Background()
	}
	ctx, cancel := context.WithCancel(base)
	done := make(chan error, 1)
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("it ended by itself")
			}
			l.Fail(fmt.Errorf("%s: %w", name, err))
			err = nil // it is reported by Failed
		}
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		done <- err
	}()
	l.add(part{name: name, cancel: cancel, stop: func() error {
		cancel()
		return <-done
	}})
	l.log.Debug("started", "part", name)
}

// OnStop adds a part without a goroutine. Stop calls the function.
func (l *Lifecycle) OnStop(name string, stop func() error) { l.add(part{name: name, stop: stop}) }

func (l *Lifecycle) add(p part) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts = append(l.parts, p)
}

// Abort stops all parts after a failure that may keep some from ending: it ends all contexts at once, so that listeners
// and connections close first, then stops the parts as Stop does, and returns after limit at the latest. It writes no
// log and touches no disk itself, because a disk that hangs is the likely failure. The error names the first part that
// had not ended.
func (l *Lifecycle) Abort(limit time.Duration) error {
	l.mu.Lock()
	parts := l.parts
	l.parts = nil
	l.mu.Unlock()
	for i := len(parts) - 1; i >= 0; i-- {
		if parts[i].cancel != nil {
			parts[i].cancel()
		}
	}
	var waiting atomic.Int64
	stopped := make(chan error, 1)
	go func() {
		var errs []error
		for i := len(parts) - 1; i >= 0; i-- {
			waiting.Store(int64(i))
			if err := parts[i].stop(); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", parts[i].name, err))
			}
		}
		stopped <- errors.Join(errs...)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-stopped:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: %s has not stopped within %s", ErrUnfinished, parts[waiting.Load()].name, limit)
	}
}

// ErrUnfinished means that a part of the member still runs. The process should exit at once.
var ErrUnfinished = errors.New("the member ends with a part that hangs")

// Stop stops all parts, in reverse order, and waits for each.
func (l *Lifecycle) Stop() error {
	l.mu.Lock()
	parts := l.parts
	l.parts = nil
	l.mu.Unlock()
	var errs []error
	for i := len(parts) - 1; i >= 0; i-- {
		l.log.Debug("stopping", "part", parts[i].name)
		if err := parts[i].stop(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", parts[i].name, err))
		}
	}
	return errors.Join(errs...)
}

// Failed delivers the first failure of a part.
func (l *Lifecycle) Failed() <-chan error { return l.failed }
