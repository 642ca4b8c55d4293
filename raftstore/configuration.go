package raftstore

import (
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// configurationIndex knows at which index this member's latest Raft configuration stands. Raft knows it and does not tell: what
// [raft.Raft.GetConfiguration] returns has the index 0. So it is noted where configurations pass by: in the log, of which Raft
// reads every entry when it starts, and in the snapshots that Raft opens.
type configurationIndex struct {
	mu   sync.Mutex
	seen []uint64 // in order
}

// keptConfigurations bounds the indexes that are remembered: as many configurations as may be taken back when another leader
// cuts the log short. Raft has at most one that is not committed.
const keptConfigurations = 64

func (c *configurationIndex) latest() Revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		return 0
	}
	return Revision(c.seen[len(c.seen)-1])
}

func (c *configurationIndex) note(index uint64) {
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

// cut forgets what stood at index first or after it: those entries are no longer in the log.
func (c *configurationIndex) cut(first uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, _ := slices.BinarySearch(c.seen, first)
	c.seen = c.seen[:i]
}

// notingLog notes the configurations that pass through a log, and tells of what it is about to take in.
type notingLog struct {
	raft.LogStore
	index *configurationIndex
	news  *news
}

func (l notingLog) GetLog(index uint64, log *raft.Log) error {
	err := l.LogStore.GetLog(index, log)
	if err == nil && log.Type == raft.LogConfiguration {
		l.index.note(log.Index)
	}
	return err
}

func (l notingLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

func (l notingLog) StoreLogs(logs []*raft.Log) error {
	l.news.tell()
	if err := l.LogStore.StoreLogs(logs); err != nil {
		return err
	}
	for _, log := range logs {
		if log.Type == raft.LogConfiguration {
			l.index.note(log.Index)
		}
	}
	return nil
}

// DeleteRange takes entries away at either end: the old ones, whose configurations still hold, or the last ones, which another
// leader replaces.
func (l notingLog) DeleteRange(first, last uint64) error {
	end, err := l.LastIndex()
	if err != nil {
		return err
	}
	if err := l.LogStore.DeleteRange(first, last); err != nil {
		return err
	}
	// Where a whole log goes, a snapshot that Raft has opened takes its place, and its configuration is noted already.
	if start, err := l.FirstIndex(); err == nil && start != 0 && last >= end {
		l.index.cut(first)
	}
	return nil
}

// IsMonotonic is how Raft learns whether a log can have gaps.
func (l notingLog) IsMonotonic() bool {
	m, ok := l.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// notingSnapshots notes the configurations of the snapshots that Raft opens.
type notingSnapshots struct {
	raft.SnapshotStore
	index *configurationIndex
}

func (s notingSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id)
	if err == nil {
		s.index.note(meta.ConfigurationIndex)
	}
	return meta, r, err
}
