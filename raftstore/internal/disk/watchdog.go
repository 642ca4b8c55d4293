package disk

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// watchdog detects calls that do not return.
type watchdog struct {
	limit   time.Duration
	observe func(time.Duration)
	fail    func(error)
}

// begin watches one call until the function that it returns is called.
func (w *watchdog) begin(what string) (end func()) { return w.beginFor(what, w.limit) }

// portions is in how many portions the watchdog waits. A process that is paused loses one of them, however long the
// pause is, so that a call that was under way has the others to return.
const portions = 4

// beginFor watches one call that may take as long as limit.
func (w *watchdog) beginFor(what string, limit time.Duration) (end func()) {
	since := time.Now()
	portion := limit / portions
	var mu sync.Mutex
	var alarm *time.Timer
	left, ended := portions, false
	expire := func() {
		mu.Lock()
		left--
		last := left == 0 && !ended
		if left > 0 && !ended {
			alarm.Reset(portion)
		}
		mu.Unlock()
		if last {
			w.fail(fmt.Errorf("member stopped: %s has not returned for %s; "+
				"the disk of the data folder hangs or is far too slow", what, limit))
		}
	}
	mu.Lock()
	alarm = time.AfterFunc(portion, expire)
	mu.Unlock()
	return func() {
		mu.Lock()
		ended = true
		alarm.Stop()
		mu.Unlock()
		w.observe(time.Since(since))
	}
}

// timedStore times every call to the log and to the stable store, and keeps from Raft every error at which it would
// panic.
type timedStore struct {
	log    raft.LogStore
	stable raft.StableStore
	health *Health
}

// FirstIndex implements raft.LogStore.
func (t *timedStore) FirstIndex() (index uint64, err error) {
	err = t.health.read("reading the first index of the log", func() error {
		index, err = t.log.FirstIndex()
		return err
	})
	return index, err
}

// LastIndex implements raft.LogStore.
func (t *timedStore) LastIndex() (index uint64, err error) {
	err = t.health.read("reading the last index of the log", func() error {
		index, err = t.log.LastIndex()
		return err
	})
	return index, err
}

// GetLog implements raft.LogStore.
func (t *timedStore) GetLog(index uint64, log *raft.Log) error {
	return t.health.read("reading from the log", func() error { return t.log.GetLog(index, log) })
}

// StoreLog implements raft.LogStore.
func (t *timedStore) StoreLog(log *raft.Log) error { return t.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore. On a full disk it is not begun, so that what room is left stays for the audit
// log.
func (t *timedStore) StoreLogs(logs []*raft.Log) error {
	if err := t.health.full(); err != nil && t.health.serving.Load() {
		return err
	}
	return t.health.write("writing to the log", func() error { return t.log.StoreLogs(logs) })
}

// DeleteRange implements raft.LogStore.
func (t *timedStore) DeleteRange(first, last uint64) error {
	return t.health.write("truncating the log", func() error { return t.log.DeleteRange(first, last) })
}

// IsMonotonic implements raft.MonotonicLogStore.
func (t *timedStore) IsMonotonic() bool {
	m, ok := t.log.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// currentTerm is the key under which Raft stores its term, at whose loss it panics. All other keys are those of votes.
const currentTerm = "CurrentTerm"

// vote makes a write to the stable store that is not the term. A member without room does not begin it, so that it
// neither votes nor, alone in its cluster, elects itself.
func (t *timedStore) vote(key []byte, write func() error) error {
	const what = "writing a vote or term"
	if string(key) == currentTerm {
		return t.health.mustWrite(what, write)
	}
	if err := t.health.full(); err != nil && t.health.serving.Load() {
		return err
	}
	return t.health.write(what, write)
}

// Set implements raft.StableStore.
func (t *timedStore) Set(key, value []byte) error {
	return t.vote(key, func() error { return t.stable.Set(key, value) })
}

// SetUint64 implements raft.StableStore.
func (t *timedStore) SetUint64(key []byte, value uint64) error {
	return t.vote(key, func() error { return t.stable.SetUint64(key, value) })
}

// Get implements raft.StableStore.
func (t *timedStore) Get(key []byte) (value []byte, err error) {
	err = t.health.read("reading a vote or term", func() error { value, err = t.stable.Get(key); return err })
	return value, err
}

// GetUint64 implements raft.StableStore.
func (t *timedStore) GetUint64(key []byte) (value uint64, err error) {
	err = t.health.read("reading a vote or term", func() error { value, err = t.stable.GetUint64(key); return err })
	return value, err
}
