package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// callEvery is how often each direction calls. Each call is a full mutual handshake.
const callEvery = 50 * time.Millisecond

// traffic makes calls in both directions until it is stopped, and counts them.
type traffic struct {
	mu     sync.Mutex
	calls  int
	failed int
	first  error
}

// route is a caller and the instance that it calls.
type route struct {
	caller   *workload
	address  string
	expected spiffeid.ID
}

// keepCalling makes calls along the routes until the world ends.
func (w *world) keepCalling(routes ...route) *traffic {
	t := &traffic{}
	running, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	for _, r := range routes {
		loops.Go(func() {
			tick := time.NewTicker(callEvery)
			defer tick.Stop()
			for {
				_, err := r.caller.call(running, r.address, r.expected)
				if running.Err() != nil {
					return
				}
				t.count(err)
				select {
				case <-running.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	w.onClose(func() { stop(); loops.Wait() })
	return t
}

func (t *traffic) count(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls++
	if err != nil {
		t.failed++
		if t.first == nil {
			t.first = err
		}
	}
}

// mark returns the number of calls so far, for since.
func (t *traffic) mark() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls
}

// since returns the number of calls since a mark, or an error if any call has failed.
func (t *traffic) since(mark int) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed > 0 {
		return 0, fmt.Errorf("%d of %d calls failed, the first with: %w", t.failed, t.calls, t.first)
	}
	return t.calls - mark, nil
}
