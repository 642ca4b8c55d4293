// Package clocktest runs tests under a virtual clock.
//
// It is [synctest.Test] with one precaution. All timers of a bubble that fire in a goroutine of their own, such as those that are set to what has
// passed, share one context of the race detector; where two do so at once the detector ends the process with "ThreadSanitizer: CHECK failed"
// (https://go.dev/issue/78156). So with the race detector a bubble has one processor; what happens before what, which is all that the detector looks
// at, is the same.
package clocktest

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Run is [synctest.Test]. Under the race detector it must not run beside other tests, as the number of processors is the process's own.
func Run(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if raceEnabled {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, f)
}
