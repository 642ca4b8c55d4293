package clocktest_test

import (
	"sync"
	"testing"
	"time"

	"github.com/ententehq/entente/internal/clocktest"
)

// TestTimersOfWhatHasPassed is what the race detector does not survive on several processors.
func TestTimersOfWhatHasPassed(t *testing.T) {
	clocktest.Run(t, func(*testing.T) {
		began := time.Now()
		var setters sync.WaitGroup
		for range 8 {
			setters.Go(func() {
				for range 3000 {
					<-time.NewTimer(0).C
				}
			})
		}
		setters.Wait()
		if passed := time.Since(began); passed != 0 {
			t.Errorf("%s of the virtual clock passed; timers that were due took none", passed)
		}
	})
}
