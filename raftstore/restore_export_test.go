package raftstore

import (
	"errors"

	"github.com/hashicorp/raft"
)

// Staged counts the rows of restores that have not ended.
func Staged(s *Store) int {
	now := s.fsm.state()
	return int(count(now.entries(stagedTable)) + count(now.entries(carriedTable)))
}

// Compact takes a snapshot now and shortens the log to its newest entry. It returns the first and last index that are left.
func Compact(s *Store) (first, last uint64, err error) {
	reloadable := s.raft.ReloadableConfig()
	reloadable.TrailingLogs = 1
	if err := s.raft.ReloadConfig(reloadable); err != nil {
		return 0, 0, err
	}
	if err := s.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return 0, 0, err
	}
	if first, err = s.disk.log.FirstIndex(); err != nil {
		return 0, 0, err
	}
	last, err = s.disk.log.LastIndex()
	return first, last, err
}
