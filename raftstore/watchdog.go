package raftstore

import (
	"time"

	"github.com/hashicorp/raft"
)

// watchdog notices when a call to the log store does not return. Raft cannot notice by itself: the call blocks the loop that
// would, while another goroutine goes on sending heartbeats, so that the member keeps a lead with which it commits nothing.
type watchdog struct {
	limit   time.Duration
	metrics *metrics
	fail    func(error)
}

// begin watches over one call until the function that it returns is called.
func (w *watchdog) begin(what string) (end func()) {
	since := time.Now()
	alarm := time.AfterFunc(w.limit, func() {
		w.fail(fatalError("%s has not returned for %s; the disk below the data folder hangs or is far too slow", what, w.limit))
	})
	return func() {
		alarm.Stop()
		w.metrics.diskCall(time.Since(since))
	}
}

// timedStore has the watchdog look at every call to the log store.
type timedStore struct {
	log      raft.LogStore
	stable   raft.StableStore
	watchdog *watchdog
}

func (t *timedStore) FirstIndex() (uint64, error) {
	defer t.watchdog.begin("reading the first index of the log")()
	return t.log.FirstIndex()
}

func (t *timedStore) LastIndex() (uint64, error) {
	defer t.watchdog.begin("reading the last index of the log")()
	return t.log.LastIndex()
}

func (t *timedStore) GetLog(index uint64, log *raft.Log) error {
	defer t.watchdog.begin("reading from the log")()
	return t.log.GetLog(index, log)
}

func (t *timedStore) StoreLog(log *raft.Log) error {
	defer t.watchdog.begin("writing to the log")()
	return t.log.StoreLog(log)
}

func (t *timedStore) StoreLogs(logs []*raft.Log) error {
	defer t.watchdog.begin("writing to the log")()
	return t.log.StoreLogs(logs)
}

func (t *timedStore) DeleteRange(first, last uint64) error {
	defer t.watchdog.begin("shortening the log")()
	return t.log.DeleteRange(first, last)
}

func (t *timedStore) Set(key, value []byte) error {
	defer t.watchdog.begin("writing a vote or term")()
	return t.stable.Set(key, value)
}

func (t *timedStore) Get(key []byte) ([]byte, error) {
	defer t.watchdog.begin("reading a vote or term")()
	return t.stable.Get(key)
}

func (t *timedStore) SetUint64(key []byte, value uint64) error {
	defer t.watchdog.begin("writing a vote or term")()
	return t.stable.SetUint64(key, value)
}

func (t *timedStore) GetUint64(key []byte) (uint64, error) {
	defer t.watchdog.begin("reading a vote or term")()
	return t.stable.GetUint64(key)
}
