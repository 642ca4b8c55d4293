package feed

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/raftstore"
)

// Affected is what a [Set] has gathered.
type Affected[K comparable] struct {
	// All means that any key may be affected: the consumer starts, or changes were missed.
	All bool
	// Keys holds the affected keys. If All is set it may be incomplete.
	Keys map[K]struct{}
}

// Set gathers affected keys until its consumer takes them. Adding never waits. It is safe for concurrent use.
type Set[K comparable] struct {
	wake chan struct{}

	mu       sync.Mutex
	affected Affected[K]
}

// NewSet returns an empty set.
func NewSet[K comparable]() *Set[K] {
	return &Set[K]{wake: make(chan struct{}, 1), affected: Affected[K]{Keys: make(map[K]struct{})}}
}

// Add adds keys and wakes the consumer. Without keys it does nothing.
func (s *Set[K]) Add(keys ...K) {
	if len(keys) == 0 {
		return
	}
	s.mu.Lock()
	for _, key := range keys {
		s.affected.Keys[key] = struct{}{}
	}
	s.mu.Unlock()
	s.signal()
}

// AddAll marks every key as affected and wakes the consumer.
func (s *Set[K]) AddAll() {
	s.mu.Lock()
	s.affected.All = true
	s.mu.Unlock()
	s.signal()
}

func (s *Set[K]) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Wake delivers a value after something was added. In rare cases it was taken already, and [Set.Take] returns nothing.
func (s *Set[K]) Wake() <-chan struct{} { return s.wake }

// Take returns what was added since the last call, and empties the set.
func (s *Set[K]) Take() Affected[K] {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.wake: // for keys that are taken now
	default:
	}
	taken := s.affected
	s.affected = Affected[K]{Keys: make(map[K]struct{})}
	return taken
}

// Pace limits how often a [Set] is delivered.
type Pace struct {
	// Gather is how long a delivery waits for more, once something is there. If zero, it does not wait.
	Gather time.Duration
	// Least is the least time between the starts of two deliveries. If zero, there is none.
	Least time.Duration
}

// Each calls fn with what was gathered, until ctx ends or fn returns an error, which Each returns.
func (s *Set[K]) Each(ctx context.Context, pace Pace, fn func(Affected[K]) error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
		wait := pace.Gather
		if !last.IsZero() {
			wait = max(wait, pace.Least-time.Since(last))
		}
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
		}
		taken := s.Take()
		if !taken.All && len(taken.Keys) == 0 {
			continue // the signal was left over
		}
		last = time.Now()
		if err := fn(taken); err != nil {
			return err
		}
	}
}

// Keys follows tables and gathers the keys that changes affect.
type Keys[K comparable] struct {
	Store Store
	Over  []raftstore.Prefix
	// Affected adds to the set what a change affects, [Set.AddAll] included. The view is at least as new as the change.
	// It is called from one goroutine, and must be cheap. Its error ends Run.
	Affected func(view *raftstore.View, change raftstore.Change, set *Set[K]) error
	Pace     Pace
}

// Run calls fn with a view and the keys that have been affected up to it, the first time with [Affected.All] set. The
// set may be shared with goroutines that add to it for other reasons. Changes are gathered while fn runs. Run returns
// when ctx ends, or when Affected or fn returns an error.
func (f Keys[K]) Run(ctx context.Context, set *Set[K], fn func(*raftstore.View, Affected[K]) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.gather(ctx, set) })
	group.Go(func() error {
		return set.Each(ctx, f.Pace, func(a Affected[K]) error { return fn(f.Store.View(), a) })
	})
	return group.Wait()
}

func (f Keys[K]) gather(ctx context.Context, set *Set[K]) error {
	start := func(*raftstore.View) error {
		set.AddAll()
		return nil
	}
	apply := func(view *raftstore.View, batch raftstore.Batch) error {
		for _, change := range batch.Changes {
			if err := f.Affected(view, change, set); err != nil {
				return err
			}
		}
		return nil
	}
	return Batches(ctx, f.Store, f.Over, start, apply)
}
