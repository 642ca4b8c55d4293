package audit

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// hangsAfter is how long a call to the disk may take before the log counts as one that cannot be written.
	hangsAfter = time.Second
	// resumeEvery is how often a log whose last line could not be written is tried again.
	resumeEvery = time.Second
)

// operation is a call to the disk, of which one of each kind runs at a time.
type operation int

const (
	writing operation = iota
	syncing
	operations
)

func (o operation) String() string { return [...]string{"a write", "an fsync"}[o] }

// health is whether the log can be written. It is read without waiting for the disk.
type health struct {
	mu sync.Mutex
	// failed is the error of the last call, or nil.
	failed error
	// began is when the call that runs began, by its kind; zero: none does.
	began [operations]time.Time
}

// begin records that a call begins, until the function that it returns is called with its error.
func (h *health) begin(o operation, now time.Time) (end func(error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.began[o] = now
	return func(err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.began[o], h.failed = time.Time{}, err
	}
}

// err returns why nothing can be recorded, or nil.
func (h *health) err(now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for o, began := range h.began {
		if took := now.Sub(began); !began.IsZero() && took > hangsAfter {
			return fmt.Errorf("the disk of the audit log hangs or is far too slow: %s has not returned for %s",
				operation(o), took.Round(100*time.Millisecond))
		}
	}
	return h.failed
}

// failure returns the error of the last call, or nil.
func (h *health) failure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// Err returns why nothing can be recorded, or nil: the last line could not be written, or a call to the disk does not
// return.
func (l *Log) Err() error { return l.health.err(l.now()) }

// Run ends the failure of a log whose disk is right again, until ctx ends: without it, only the next event would, and
// none comes to a member that counts as unable to record one. The line that it records is also where lines may be
// missing.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(resumeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if failed := l.health.failure(); failed != nil {
			_ = l.Record(Event{ // which logs its own error
				Caller: "member " + l.member, Action: "resume audit log", Result: ResultDone, Durable: true,
				Detail: fmt.Sprintf("lines before this one could not be written: %v", failed),
			})
		}
	}
}
