package memory

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Received is the leader's side of a [Section]. Each value has a version, which grows with every change, so that a
// reader can fetch what is newer than what it has.
type Received[K comparable, V any] struct {
	merge func(was V, known bool, is V) (V, bool)
	limit int
	now   func() time.Time

	mu         sync.Mutex
	leadership Leadership
	values     map[K]Versioned[K, V]
	// runs holds the process of each member that has reported, and complete the members that have reported everything.
	runs     map[string]uint64
	complete map[string]bool
}

// Leadership identifies one time that this member leads.
type Leadership struct {
	// ID is drawn at random, and is 0 before this member has led.
	ID uint64
	// Since is when it began.
	Since time.Time
	// Version is that of the latest change.
	Version uint64
}

// Versioned is a received value.
type Versioned[K comparable, V any] struct {
	Key     K
	Value   V
	Version uint64
}

func newReceived[K comparable, V any](config Config[K, V]) *Received[K, V] {
	r := &Received[K, V]{
		merge: config.Merge, limit: config.MaxReceived, now: config.Now,
		values: make(map[K]Versioned[K, V]), runs: make(map[string]uint64), complete: make(map[string]bool),
	}
	if r.merge == nil {
		r.merge = func(_ V, _ bool, is V) (V, bool) { return is, true }
	}
	return r
}

// Get returns what was received of a key.
func (r *Received[K, V]) Get(key K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.values[key]
	return v.Value, ok
}

// All returns a copy of everything that was received.
func (r *Received[K, V]) All() map[K]V {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[K]V, len(r.values))
	for key, v := range r.values {
		all[key] = v.Value
	}
	return all
}

// Since returns the values that have changed after a version, oldest change first.
func (r *Received[K, V]) Since(version uint64) []Versioned[K, V] {
	r.mu.Lock()
	defer r.mu.Unlock()
	var newer []Versioned[K, V]
	for _, v := range r.values {
		if v.Version > version {
			newer = append(newer, v)
		}
	}
	slices.SortFunc(newer, func(a, b Versioned[K, V]) int { return cmp.Compare(a.Version, b.Version) })
	return newer
}

// Set replaces the value of a key, as if a member had reported it.
func (r *Received[K, V]) Set(key K, value V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(key, value)
}

// set requires that r.mu is held.
func (r *Received[K, V]) set(key K, value V) {
	r.leadership.Version++
	r.values[key] = Versioned[K, V]{key, value, r.leadership.Version}
}

// Change replaces the values for which change returns true. change must not use the section.
func (r *Received[K, V]) Change(change func(K, V) (V, bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, v := range r.values {
		if next, ok := change(key, v.Value); ok {
			r.set(key, next)
		}
	}
}

// DeleteFunc removes the keys for which remove returns true. remove must not use the section.
func (r *Received[K, V]) DeleteFunc(remove func(K, V) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.values, func(key K, v Versioned[K, V]) bool { return remove(key, v.Value) })
}

// Delete removes a key.
func (r *Received[K, V]) Delete(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.values, key)
}

// Leadership returns the present leadership, or the last one.
func (r *Received[K, V]) Leadership() Leadership {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leadership
}

// Complete reports whether each of the members has reported everything since leadership began, and since it started. It
// needs a codec that transports [Report.Full] and [Report.Run].
func (r *Received[K, V]) Complete(members []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !slices.ContainsFunc(members, func(member string) bool { return !r.complete[member] })
}

// Members returns the members that have reported since leadership began.
func (r *Received[K, V]) Members() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.runs))
}

// restarted records the process that a member reports from, and reports whether it is another one than before.
func (r *Received[K, V]) restarted(member string, run uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.runs[member]
	r.runs[member] = run
	if known && last == run {
		return false
	}
	r.complete[member] = false
	return known
}

func (r *Received[K, V]) deliver(member string, report Report[K, V]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range report.Entries {
		was, known := r.values[e.Key]
		if !known && r.limit > 0 && len(r.values) >= r.limit {
			continue
		}
		if next, keep := r.merge(was.Value, known, e.Value); keep {
			r.set(e.Key, next)
		} else {
			delete(r.values, e.Key)
		}
	}
	r.complete[member] = r.complete[member] || report.Full
}

func (r *Received[K, V]) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.values)
	clear(r.runs)
	clear(r.complete)
	r.leadership = Leadership{ID: rand.Uint64() | 1, Since: r.now()}
}
