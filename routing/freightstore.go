package routing

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/ententehq/entente/raftstore"
)

// Run stores what comes, until the stream ends.
func (f *Freight) Run(ctx context.Context) {
	defer f.m.carrying.remove(f)
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.work:
		}
		for {
			batch := f.take()
			if len(batch) == 0 {
				break
			}
			if f.m.carrying.paceOf(f.stream.Home).wait(ctx, batch) != nil {
				return
			}
			if !f.store(ctx, batch) {
				return
			}
		}
	}
}

// take returns some of what is to be stored, of one trust domain.
func (f *Freight) take() (batch []arrival) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(f.arrived), func(a, b sharedKey) int { return compareKeys(a, b) })
	size := 0
	for _, key := range keys {
		a := f.arrived[key]
		if len(batch) > 0 && (key.domain != batch[0].key.domain || size+len(a.instances) > storeInstances || len(batch) >= storeSets) {
			break
		}
		batch = append(batch, a)
		size += len(a.instances)
		delete(f.arrived, key)
	}
	f.unstored -= size
	return batch
}

// store stores what came, and answers. False: the stream has ended.
func (f *Freight) store(ctx context.Context, batch []arrival) bool {
	outcomes, err := f.m.storeArrivals(ctx, f.stream.Home, batch)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		// It is no fault of the peer's. What it brought meanwhile is newer.
		level := f.m.log.Warn
		if errors.Is(err, raftstore.ErrBusy) {
			level = f.m.log.Debug
		}
		level("what a peer exports cannot be stored at the moment; it is tried again", "peer", f.stream.Home, "error", err)
		f.mu.Lock()
		for _, a := range batch {
			if _, newer := f.arrived[a.key]; !newer {
				f.arrived[a.key] = a
				f.unstored += len(a.instances)
			}
		}
		f.mu.Unlock()
		again := time.NewTimer(storeAgain)
		defer again.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-again.C:
			return true
		}
	}
	f.mu.Lock()
	for n, a := range batch {
		f.answer(a.key, a.digest, outcomes[n])
		if outcomes[n] == "" {
			f.told[a.key] = a.digest
		}
	}
	f.mu.Unlock()
	f.stream.Wake()
	return true
}
