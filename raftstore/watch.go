package raftstore

import (
	"context"

	"github.com/ententehq/entente/raftstore/internal/history"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// Batch is what one revision changed: each changed row once, as the revision left it.
type Batch = row.Batch

// Change is a row as a revision left it. Its Value is the encoded message, for [Table.Decode]; nil means that the row
// was deleted.
type Change = row.Change

// Watch delivers changes in order. It belongs to one goroutine at a time.
type Watch struct {
	closed <-chan struct{} // when the store is
	sub    *history.Subscription
}

// Next waits for the next revision that changed something below the prefixes, and returns those changes. After
// [ErrWatchRestart], which a watch gets that is too far behind or whose state was replaced as a whole, the watch is
// over.
func (w *Watch) Next(ctx context.Context) (Batch, error) {
	for {
		b, ok, err := w.sub.Next()
		if ok || err != nil {
			return b, err
		}
		if err := w.wait(ctx); err != nil {
			return Batch{}, err
		}
	}
}

// Skip waits until something below the prefixes has changed, and skips all changes up to then: the caller reads the
// present state instead. Unlike [Watch.Next] it never returns [ErrWatchRestart], and a watch that has missed changes
// can be used again after it.
func (w *Watch) Skip(ctx context.Context) error {
	if err := w.wait(ctx); err != nil {
		return err
	}
	w.sub.Skip()
	return nil
}

func (w *Watch) wait(ctx context.Context) error {
	select {
	case <-w.sub.Signal():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closed:
		return ErrClosed
	}
}

// Close ends the watch.
func (w *Watch) Close() { w.sub.Close() }
