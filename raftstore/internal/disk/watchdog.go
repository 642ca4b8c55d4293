package disk

import (
	"fmt"
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
func (w *watchdog) begin(what string) (end func()) {
	since := time.Now()
	alarm := time.AfterFunc(w.limit, func() {
		w.fail(fmt.Errorf("member stopped: %s has not returned for %s; "+
			"the disk of the data folder hangs or is far too slow", what, w.limit))
	})
	return func() {
		alarm.Stop()
		w.observe(time.Since(since))
	}
}

// timedStore times every call to the log and to the stable store.
type timedStore struct {
	log      raft.LogStore
	stable   raft.StableStore
	watchdog watchdog
}

// FirstIndex implements raft.LogStore.
func (t *timedStore) FirstIndex() (uint64, error) {
	defer t.watchdog.begin("reading the first index of the log")()
	return t.log.FirstIndex()
}

// LastIndex implements raft.LogStore.
func (t *timedStore) LastIndex() (uint64, error) {
	defer t.watchdog.begin("reading the last index of the log")()
	return t.log.LastIndex()
}

// GetLog implements raft.LogStore.
func (t *timedStore) GetLog(index uint64, log *raft.Log) error {
	defer t.watchdog.begin("reading from the log")()
	return t.log.GetLog(index, log)
}

// StoreLog implements raft.LogStore.
func (t *timedStore) StoreLog(log *raft.Log) error {
	defer t.watchdog.begin("writing to the log")()
	return t.log.StoreLog(log)
}

// StoreLogs implements raft.LogStore.
func (t *timedStore) StoreLogs(logs []*raft.Log) error {
	defer t.watchdog.begin("writing to the log")()
	return t.log.StoreLogs(logs)
}

// DeleteRange implements raft.LogStore.
func (t *timedStore) DeleteRange(first, last uint64) error {
	defer t.watchdog.begin("truncating the log")()
	return t.log.DeleteRange(first, last)
}

// Set implements raft.StableStore.
func (t *timedStore) Set(key, value []byte) error {
	defer t.watchdog.begin("writing a vote or term")()
	return t.stable.Set(key, value)
}

// Get implements raft.StableStore.
func (t *timedStore) Get(key []byte) ([]byte, error) {
	defer t.watchdog.begin("reading a vote or term")()
	return t.stable.Get(key)
}

// SetUint64 implements raft.StableStore.
func (t *timedStore) SetUint64(key []byte, value uint64) error {
	defer t.watchdog.begin("writing a vote or term")()
	return t.stable.SetUint64(key, value)
}

// GetUint64 implements raft.StableStore.
func (t *timedStore) GetUint64(key []byte) (uint64, error) {
	defer t.watchdog.begin("reading a vote or term")()
	return t.stable.GetUint64(key)
}
