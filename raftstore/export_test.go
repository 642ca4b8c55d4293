package raftstore

import "github.com/hashicorp/raft"

// WrapLog puts something between a member and its log.
func WrapLog(c *Config, wrap func(raft.LogStore) raft.LogStore) { c.wrapLog = wrap }

// MaxCommand is the largest command.
const MaxCommand = maxCommand

// RowsOf counts the rows of a table.
func RowsOf(v *View, table string) int { return int(count(v.rows(table, ""))) }
