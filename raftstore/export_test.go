package raftstore

import "github.com/hashicorp/raft"

// WrapLog puts something between a member and its log.
func WrapLog(c *Config, wrap func(raft.LogStore) raft.LogStore) { c.wrapLog = wrap }

// MaxCommand is the largest command.
const MaxCommand = maxCommand

// HistoryBatches is how many revisions watches can go back.
const HistoryBatches = maxHistoryBatches
