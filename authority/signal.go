package authority

import (
	"context"
	"github.com/ententehq/entente/authority/plan"
	"sync"
	"time"
)

// signal tells any number of goroutines that something changed.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// next returns a channel that is closed at the next fire. It is taken before the state is looked at, so that no change
// between the look and the wait is missed.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// lookAgain is the longest that a loop waits without a look at the clock: timers do not follow a clock that is set.
const lookAgain = time.Minute

// waitFor waits for a change, for d to pass, or for the end of ctx, whose error it returns.
func waitFor(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
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

// until is how long to wait for a moment, never to wait without end.
func until(at, now time.Time) time.Duration {
	if at.Equal(plan.Never) {
		return lookAgain
	}
	return min(max(at.Sub(now), 0), lookAgain)
}
