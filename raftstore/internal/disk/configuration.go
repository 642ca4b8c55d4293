package disk

import (
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// configurationIndex records at which index this member's latest Raft configuration is. Raft has the index and does not
// return it: that of raft.Raft.GetConfiguration is 0. So it is taken from the log, of which Raft reads every entry when
// it starts, and from the snapshots that Raft opens.
type configurationIndex struct {
	mu   sync.Mutex
	seen []uint64 // in order
}

// keptConfigurations bounds the indexes that are remembered: as many configurations as may be lost when another leader
// truncates the log. Raft has at most one that is not committed.
const keptConfigurations = 64

func (c *configurationIndex) latest() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		return 0
	}
	return c.seen[len(c.seen)-1]
}

func (c *configurationIndex) record(index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, found := slices.BinarySearch(c.seen, index)
	if found || index == 0 {
		return
	}
	c.seen = slices.Insert(c.seen, i, index)
	if extra := len(c.seen) - keptConfigurations; extra > 0 {
		c.seen = slices.Delete(c.seen, 0, extra)
	}
}

// truncate forgets the indexes from first on: those entries are no longer in the log.
func (c *configurationIndex) truncate(first uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, _ := slices.BinarySearch(c.seen, first)
	c.seen = c.seen[:i]
}

// recordingLog records the configurations in a log, and announces entries that are about to be written.
type recordingLog struct {
	raft.LogStore
	configurations *configurationIndex
	appending      func()
}

// GetLog implements raft.LogStore.
func (l recordingLog) GetLog(index uint64, log *raft.Log) error {
	err := l.LogStore.GetLog(index, log)
	if err == nil && log.Type == raft.LogConfiguration {
		l.configurations.record(log.Index)
	}
	return err
}

// StoreLog implements raft.LogStore.
func (l recordingLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (l recordingLog) StoreLogs(logs []*raft.Log) error {
	l.appending()
	if err := l.LogStore.StoreLogs(logs); err != nil {
		return err
	}
	for _, log := range logs {
		if log.Type == raft.LogConfiguration {
			l.configurations.record(log.Index)
		}
	}
	return nil
}

// DeleteRange implements raft.LogStore. It removes entries at either end: the old ones, whose configurations still
// hold, or the last ones, which another leader replaces.
func (l recordingLog) DeleteRange(first, last uint64) error {
	end, err := l.LastIndex()
	if err != nil {
		return err
	}
	if err := l.LogStore.DeleteRange(first, last); err != nil {
		return err
	}
	// A whole log is replaced by a snapshot that Raft has opened, whose configuration is recorded already.
	if start, err := l.FirstIndex(); err == nil && start != 0 && last >= end {
		l.configurations.truncate(first)
	}
	return nil
}

// IsMonotonic implements raft.MonotonicLogStore, by which Raft learns whether a log can have gaps.
func (l recordingLog) IsMonotonic() bool {
	m, ok := l.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// recordingSnapshots records the configurations of the snapshots that Raft opens.
type recordingSnapshots struct {
	raft.SnapshotStore
	configurations *configurationIndex
}

// Open implements raft.SnapshotStore.
func (s recordingSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id)
	if err == nil {
		s.configurations.record(meta.ConfigurationIndex)
	}
	return meta, r, err
}
