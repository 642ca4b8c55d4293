// Package feed follows replicated tables: it turns the watches of a [raftstore.Store] into the loops that rooms need.
//
// There are three of them. All start with the present state, run until their context ends or a callback returns an
// error, and start again by themselves when a watch cannot deliver every change any more, because the consumer is too
// far behind or a restore replaced the state.
//
//   - [Latest] calls a function with the present state, and again after changes. Changes that arrive while the function
//     runs lead to one more call. It suits a room that compares everything with everything.
//   - [Batches] delivers every change in order, after a first call with the whole state. It suits an index.
//   - [Keys] gathers the keys that changes affect in a [Set], and delivers the set at a pace of its own. It suits a
//     consumer whose work depends on how much changed, and that may be slower than the writers.
//
// A [Set] also works alone: several goroutines add to it, and a loop with other events of its own selects on
// [Set.Wake] and takes the keys with [Set.Take].
//
//	affected := feed.NewSet[string]()
//	keys := feed.Keys[string]{
//		Store: store,
//		Over:  []raftstore.Prefix{Services.Prefix("")},
//		Affected: func(_ *raftstore.View, c raftstore.Change, set *feed.Set[string]) error {
//			set.Add(c.Key)
//			return nil
//		},
//		Pace: feed.Pace{Gather: 50 * time.Millisecond},
//	}
//	err := keys.Run(ctx, affected, func(view *raftstore.View, a feed.Affected[string]) error {
//		if a.All {
//			return reload(view)
//		}
//		return refresh(view, a.Keys)
//	})
//
// The package never blocks the application of log entries, and never holds more than one entry for each key.
package feed

import (
	"context"
	"errors"

	"github.com/ententehq/entente/raftstore"
)

// Store is what a feed follows; [raftstore.Store] implements it.
type Store interface {
	View() *raftstore.View
	Watch(over []raftstore.Prefix, from raftstore.Revision) *raftstore.Watch
}

// Latest calls fn with the present state, and again whenever something below one of the prefixes changed, until ctx
// ends or fn returns an error, which Latest returns. Changes that arrive while fn runs lead to one more call.
func Latest(ctx context.Context, store Store, over []raftstore.Prefix, fn func(*raftstore.View) error) error {
	watch := store.Watch(over, store.View().Revision())
	defer watch.Close()
	for {
		if err := fn(store.View()); err != nil {
			return err
		}
		if err := watch.Skip(ctx); err != nil {
			return err
		}
	}
}

// Batches calls start with the present state, and then apply with each later change below one of the prefixes, in
// order. The view that apply receives is at least as new as the batch. When changes were missed, start is called again:
// what was applied before must be replaced. Both are called from the caller's goroutine, and their errors end Batches.
func Batches(ctx context.Context, store Store, over []raftstore.Prefix,
	start func(*raftstore.View) error, apply func(*raftstore.View, raftstore.Batch) error,
) error {
	for {
		view := store.View()
		if err := start(view); err != nil {
			return err
		}
		err := applyFrom(ctx, store, store.Watch(over, view.Revision()), apply)
		if !errors.Is(err, raftstore.ErrWatchRestart) {
			return err
		}
	}
}

func applyFrom(ctx context.Context, store Store, watch *raftstore.Watch,
	apply func(*raftstore.View, raftstore.Batch) error,
) error {
	defer watch.Close()
	for {
		batch, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		if err := apply(store.View(), batch); err != nil {
			return err
		}
	}
}
