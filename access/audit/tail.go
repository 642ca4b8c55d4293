package audit

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// MaxTailLines is the number of latest events that a log keeps in memory.
const MaxTailLines = 1000

// tailBacklog is how many events a follower may be behind before it is dropped: minutes of administration, or a second
// of signing at full speed.
const tailBacklog = 4096

// ErrTailTooSlow ends a tail whose reader did not keep up. Auditing does not wait for readers.
var ErrTailTooSlow = errors.New("the reader of the audit log fell too far behind and was dropped: " +
	"the file on the member has every line")

// ErrTailEnd ends a tail that does not follow once it has delivered all events.
var ErrTailEnd = errors.New("end of the audit log")

// ring keeps the latest MaxTailLines events.
type ring struct {
	events []Recorded
	next   int // the index of the oldest event once the ring is full
}

func (r *ring) add(e Recorded) {
	if len(r.events) < MaxTailLines {
		r.events = append(r.events, e)
		return
	}
	r.events[r.next] = e
	r.next = (r.next + 1) % MaxTailLines
}

// last returns the latest n events that keep accepts, oldest first. A nil keep accepts all.
func (r *ring) last(n int, keep func(Recorded) bool) []Recorded {
	all := append(append(make([]Recorded, 0, len(r.events)), r.events[r.next:]...), r.events[:r.next]...)
	if keep != nil {
		all = slices.DeleteFunc(all, func(e Recorded) bool { return !keep(e) })
	}
	return all[len(all)-min(max(n, 0), len(all)):]
}

// Tail reads the latest events and then, if it follows, each new one. It is for one reader.
type Tail struct {
	log    *Log
	keep   func(Recorded) bool
	signal chan struct{} // has capacity 1; a value means that there may be a new event

	mu     sync.Mutex
	events []Recorded
	ended  error
}

// Tail returns a reader of the latest events, at most lines of the MaxTailLines in memory, and of new events if follow
// is set: of those that keep accepts, all if it is nil. The caller closes it.
func (l *Log) Tail(lines int, follow bool, keep func(Recorded) bool) *Tail {
	t := &Tail{log: l, keep: keep, signal: make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.events = l.ring.last(lines, keep)
	switch {
	case l.file == nil:
		t.ended = ErrClosed
	case !follow:
		t.ended = ErrTailEnd
	default:
		l.tails[t] = true
	}
	return t
}

// append adds an event, and reports whether the tail still follows.
func (t *Tail) append(e Recorded) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.events) >= MaxTailLines+tailBacklog {
		t.ended = ErrTailTooSlow
	} else if t.keep == nil || t.keep(e) {
		t.events = append(t.events, e)
	}
	t.wake()
	return t.ended == nil
}

func (t *Tail) end(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = err
	t.wake()
}

func (t *Tail) wake() {
	select {
	case t.signal <- struct{}{}:
	default:
	}
}

// Next waits for the next event. If there will be none, it returns ErrTailEnd, ErrTailTooSlow, ErrClosed or the error
// of the context.
func (t *Tail) Next(ctx context.Context) (Recorded, error) {
	for {
		t.mu.Lock()
		if len(t.events) > 0 {
			e := t.events[0]
			t.events = t.events[1:]
			t.mu.Unlock()
			return e, nil
		}
		ended := t.ended
		t.mu.Unlock()
		if ended != nil {
			return Recorded{}, ended
		}
		select {
		case <-t.signal:
		case <-ctx.Done():
			return Recorded{}, ctx.Err()
		}
	}
}

// Close ends the tail.
func (t *Tail) Close() {
	t.log.mu.Lock()
	defer t.log.mu.Unlock()
	delete(t.log.tails, t)
}
