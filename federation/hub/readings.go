package hub

import (
	"sync"
	"time"
)

// compareInterval is how often the map that a hub serves is compared with what it sends over a stream. In between, the
// endpoint is only checked: the map of ten thousand clusters has 26 MB, and something in it changes every hour.
const compareInterval = 24 * time.Hour

// readings holds how hubs' maps were last read from their endpoints.
type readings struct {
	mu    sync.Mutex
	byHub map[string]lastReading
}

// lastReading is when a map was last compared with what is stored, and the tag that it had when it was last stored
// completely. The tag is valid while what the reading depends on is unchanged; see [reading.tagBasis].
type lastReading struct {
	basis, tag string
	compared   time.Time
}

func newReadings() *readings { return &readings{byHub: make(map[string]lastReading)} }

// tag returns the tag of the map that was stored completely on this basis, or "".
func (r *readings) tag(hub, basis string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := r.byHub[hub]; last.basis == basis {
		return last.tag
	}
	return ""
}

func (r *readings) stored(hub, basis, tag string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byHub[hub] = lastReading{basis, tag, r.byHub[hub].compared}
}

func (r *readings) compared(hub string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.byHub[hub]
	last.compared = now
	r.byHub[hub] = last
}

func (r *readings) comparedAt(hub string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byHub[hub].compared
}

func (r *readings) forget(hub string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byHub, hub)
}

func (r *readings) forgetAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.byHub)
}

// comparedLately reports whether a comparison is recent enough. If the clock was set back, it is not.
func comparedLately(at, now time.Time) bool {
	age := now.Sub(at)
	return !at.IsZero() && age >= 0 && age < compareInterval
}
