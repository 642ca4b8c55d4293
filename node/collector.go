package node

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// leastSlack is what the garbage collector may always let lie.
	leastSlack = 32 << 20
	// largeHeapPercent is what it may let lie of a heap for which that is little, in percent of what is in use.
	largeHeapPercent = 50
	// smallHeapPercent bounds that of a heap of next to nothing.
	smallHeapPercent = 200
	// collectorPace is how often that is looked at.
	collectorPace = time.Second
)

// collectorPercent is the percentage for [debug.SetGCPercent] where so many bytes are in use. Go's own 100 doubles them. A member that keeps ten thousand
// relationships or a hundred thousand instances makes little garbage and is better off with less memory; one that issues makes much, and
// has little in use.
func collectorPercent(inUse uint64) int {
	if inUse == 0 {
		return 100 // nothing was collected yet
	}
	return int(min(smallHeapPercent, max(largeHeapPercent, 100*leastSlack/inUse)))
}

// paceCollector has the garbage collector follow [collectorPercent] until ctx ends, unless the environment says otherwise.
func paceCollector(ctx context.Context) error {
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
		if percent := collectorPercent(live[0].Value.Uint64()); percent*10 < last*9 || percent*10 > last*11 {
			debug.SetGCPercent(percent) // which stops the process for a moment, and so is not done for a tenth
			last = percent
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
