package raftstore

import (
	"context"
	"slices"
)

// Batch is what one revision changed.
type Batch struct {
	Revision Revision
	// Changes holds each row once, as the revision left it, in no particular order of keys.
	Changes []Change
}

// Change is a row as a revision left it.
type Change struct {
	Table, Key string
	// Value is the encoded message, for [Table.Decode]; nil: the row was deleted. It is shared: do not change it.
	Value []byte
}

func (b Batch) size() int {
	n := 64
	for _, c := range b.Changes {
		n += 64 + len(c.Table) + len(c.Key) + len(c.Value)
	}
	return n
}

// below returns the part of a batch that a subscriber wants.
func (b Batch) below(s *subscription) Batch {
	unwanted := func(c Change) bool { return !s.wants(c) }
	if !slices.ContainsFunc(b.Changes, unwanted) {
		return b
	}
	return Batch{Revision: b.Revision, Changes: slices.DeleteFunc(slices.Clone(b.Changes), unwanted)}
}

// Watch delivers changes in order. It belongs to one goroutine at a time.
type Watch struct {
	store *Store
	sub   *subscription
}

// Watch follows the rows below the prefixes from a revision on, which is usually that of a [View] that the caller has read:
// the first batch is the first one after it. Close it when done.
func (s *Store) Watch(over []Prefix, from Revision) *Watch {
	return &Watch{store: s, sub: s.fsm.history.subscribe(slices.Clone(over), from)}
}

// Next waits for the next revision that changed something below the prefixes, and returns those changes. After
// [ErrWatchRestart], which a watcher gets that is too far behind or whose state was replaced as a whole, the watch is over.
func (w *Watch) Next(ctx context.Context) (Batch, error) {
	for {
		b, ok, err := w.store.fsm.history.next(w.sub)
		if ok || err != nil {
			return b, err
		}
		select {
		case <-w.sub.signal:
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		case <-w.store.closed:
			return Batch{}, ErrClosed
		}
	}
}

// Skip waits until something below the prefixes has changed, and passes over all changes up to then: the caller reads
// the present state instead. Unlike [Watch.Next] it never returns [ErrWatchRestart], and a watch that has missed changes
// is good again after it.
func (w *Watch) Skip(ctx context.Context) error {
	select {
	case <-w.sub.signal:
		w.store.fsm.history.seen(w.sub)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.store.closed:
		return ErrClosed
	}
}

// Close ends the watch.
func (w *Watch) Close() { w.store.fsm.history.unsubscribe(w.sub) }
