package loop

import (
	"context"
	"sync"
	"time"
)

// Signal notifies any number of goroutines of a change. The zero value is ready to use.
type Signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// Next returns a channel that is closed by the next [Signal.Fire]. Call it before reading the state, so that no change
// between the read and the wait is missed.
func (s *Signal) Next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// Fire closes the channels that Next returned.
func (s *Signal) Fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// MaxWait is the longest time that a loop waits before it reads the clock again. Timers do not follow a clock that is
// set by hand.
const MaxWait = time.Minute

// WaitFor returns nil after a change or after d, and the error of ctx when that ends first.
func WaitFor(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// until returns the time to wait for a moment, at most MaxWait. The zero time stands for never.
func until(at, now time.Time) time.Duration {
	if at.IsZero() {
		return MaxWait
	}
	return min(max(at.Sub(now), 0), MaxWait)
}
