package raftstore

import (
	"errors"

	"github.com/hashicorp/raft"

	"github.com/ententehq/entente/raftstore/internal/machine"
)

// WrapLog wraps the log store of a member.
func WrapLog(c *Config, wrap func(raft.LogStore) raft.LogStore) { c.wrapLog = wrap }

// MaxCommand is the largest command.
const MaxCommand = machine.MaxCommand

// Staged counts the rows of restores that have not ended.
func Staged(s *Store) (n int) {
	for range s.machine.State().Staged() {
		n++
	}
	for range s.machine.State().Carried() {
		n++
	}
	return n
}

// Compact takes a snapshot now and truncates the log to its newest entry. It returns the first and last index that
// remain.
func Compact(s *Store) (first, last uint64, err error) {
	reloadable := s.node.raft.ReloadableConfig()
	reloadable.TrailingLogs = 1
	if err := s.node.raft.ReloadConfig(reloadable); err != nil {
		return 0, 0, err
	}
	if err := s.node.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return 0, 0, err
	}
	if first, err = s.node.disk.Log.FirstIndex(); err != nil {
		return 0, 0, err
	}
	last, err = s.node.disk.Log.LastIndex()
	return first, last, err
}
