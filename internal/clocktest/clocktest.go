// Package clocktest runs tests under a virtual clock.
//
// It is [synctest.Test] with one precaution. All timers of a bubble that fire in their own goroutine, such as those
// that are due when they are set, share one context of the race detector. If two of them fire at the same time, the
// detector ends the process with "ThreadSanitizer: CHECK failed" (https://go.dev/issue/78156). Under the race detector
// a bubble therefore has one processor. The detector still finds every race, since it compares the order of
// synchronization, which the number of processors does not change.
package clocktest

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Run is [synctest.Test]. Under the race detector it must not run in parallel with other tests, since the number of
// processors is a property of the process.
func Run(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if raceEnabled {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, f)
}
