package repeat

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	sweepInterval = time.Minute
	// sweepBatch keeps a transaction small, so that no other write waits for it.
	sweepBatch = 128
)

// Register lets a cluster whose state has nothing but calls that can be repeated adopt a snapshot.
func Register(store *raftstore.Store) {
	store.Snapshots().CountAsEmpty(func(_ *raftstore.View, table, _ string) bool { return table == made.Name() })
}

// Sweep deletes the calls that can no longer be repeated, once a minute while this member leads, until ctx ends. It
// returns the error of ctx. What it cannot delete it deletes a minute later.
func Sweep(ctx context.Context, store *raftstore.Store, now func() time.Time, log hclog.Logger) error {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if !store.IsLeader() {
			continue
		}
		if err := sweep(ctx, store, now()); err != nil {
			log.Debug("the calls that can no longer be repeated are not deleted yet", "error", err)
		}
	}
}

// sweep deletes the rows of which no call counts.
func sweep(ctx context.Context, store *raftstore.Store, now time.Time) error {
	over := func(row *statev1.MadeRequests) bool {
		return !slices.ContainsFunc(row.GetRequests(), func(r *statev1.MadeRequest) bool { return counts(r, now) })
	}
	var keys []string
	for row, err := range made.All(store.View(), "") {
		if err != nil {
			return err
		}
		if over(row.Value) {
			keys = append(keys, row.Key)
		}
	}
	for batch := range slices.Chunk(keys, sweepBatch) {
		_, err := store.Update(ctx, func(tx *raftstore.Tx) error {
			for _, key := range batch {
				row, found, err := made.Get(tx, key)
				if err != nil {
					return err
				}
				if found && over(row.Value) {
					if err := made.Delete(tx, key); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
