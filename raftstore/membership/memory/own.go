package memory

import (
	"math/rand/v2"
	"sync"
)

// Own is the member's side of a [Section]: the latest value of each key that this member knows, and which of them the
// leader does not have yet.
type Own[K comparable, V any] struct {
	once      func(K, V) bool
	cost      func(K, V) int
	maxReport int
	run       uint64

	mu      sync.Mutex
	values  map[K]V
	changed map[K]struct{}
	// full means that everything is being sent, in parts.
	full bool
}

func newOwn[K comparable, V any](config Config[K, V]) *Own[K, V] {
	o := &Own[K, V]{
		once: config.Once, cost: config.Cost, maxReport: config.MaxReport, run: rand.Uint64() | 1,
		values: make(map[K]V), changed: make(map[K]struct{}),
	}
	if o.once == nil {
		o.once = func(K, V) bool { return false }
	}
	if o.cost == nil {
		o.cost = func(K, V) int { return 1 }
	}
	return o
}

// Set replaces the value of a key, to be sent with the next report.
func (o *Own[K, V]) Set(key K, value V) {
	o.Update(key, func(v *V) bool {
		*v = value
		return true
	})
}

// Update changes the value of a key, which is the zero value if there is none. If change returns false, nothing
// changes. change must not use the section, and must not modify what the value refers to.
func (o *Own[K, V]) Update(key K, change func(*V) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	value := o.values[key]
	if change(&value) {
		o.values[key] = value
		o.changed[key] = struct{}{}
	}
}

// Get returns the value of a key.
func (o *Own[K, V]) Get(key K) (V, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	value, ok := o.values[key]
	return value, ok
}

// Delete removes a key. The leader keeps what it has received of it.
func (o *Own[K, V]) Delete(key K) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.values, key)
	delete(o.changed, key)
}

// DeleteFunc removes the keys for which remove returns true. remove must not use the section.
func (o *Own[K, V]) DeleteFunc(remove func(K, V) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, value := range o.values {
		if remove(key, value) {
			delete(o.values, key)
			delete(o.changed, key)
		}
	}
}

// collect returns the next report, and whether there is one.
func (o *Own[K, V]) collect(full bool) (Report[K, V], bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if full {
		o.full = true
		for key := range o.values {
			o.changed[key] = struct{}{}
		}
	}
	if len(o.changed) == 0 && !o.full {
		return Report[K, V]{}, false
	}
	report, cost := Report[K, V]{Run: o.run}, 0
	for key := range o.changed {
		value := o.values[key]
		cost += o.cost(key, value)
		if o.maxReport > 0 && cost > o.maxReport && len(report.Entries) > 0 {
			break
		}
		report.Entries = append(report.Entries, Entry[K, V]{key, value})
		delete(o.changed, key)
		if o.once(key, value) {
			delete(o.values, key)
		}
	}
	if o.full && len(o.changed) == 0 {
		report.Full, o.full = true, false
	}
	return report, true
}
