package process

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// leastSlack is the amount of garbage that is always acceptable.
	leastSlack = 32 << 20
	// largeHeapPercent is the acceptable garbage of a large heap, in percent of its live bytes.
	largeHeapPercent = 50
	// smallHeapPercent is the limit for a tiny heap.
	smallHeapPercent = 200
	// collectorPace is the interval at which the percentage is updated.
	collectorPace = time.Second
)

// collectorPercent returns the percentage for [debug.SetGCPercent] for a heap with so many live bytes. The default of
// Go, 100, doubles the memory. A member with ten thousand relationships or a hundred thousand instances produces little
// garbage and should use less memory; a member that mostly issues SVIDs produces much, and has a small heap.
func collectorPercent(inUse uint64) int {
	if inUse == 0 {
		return 100 // there was no collection yet
	}
	return int(min(smallHeapPercent, max(largeHeapPercent, 100*leastSlack/inUse)))
}

// PaceCollector applies [collectorPercent] until ctx ends, unless the environment sets GOGC.
func PaceCollector(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	last := 100
	before := debug.SetGCPercent(last)
	defer debug.SetGCPercent(before)
	ticker := time.NewTicker(collectorPace)
	defer ticker.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		metrics.Read(live)
		// SetGCPercent stops the process for a moment, so changes of less than a tenth are skipped.
		if percent := collectorPercent(live[0].Value.Uint64()); percent*10 < last*9 || percent*10 > last*11 {
			debug.SetGCPercent(percent)
			last = percent
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
