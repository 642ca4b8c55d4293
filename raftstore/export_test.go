package raftstore

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ententehq/entente/raftstore/internal/disk"
	"github.com/ententehq/entente/raftstore/internal/election"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// WrapLog wraps the log store of a member.
func WrapLog(c *Config, wrap func(raft.LogStore) raft.LogStore) { c.wrapLog = wrap }

// ReplaceProbe replaces the probes of a member's disk.
func ReplaceProbe(c *Config, p disk.Probe) { c.probe = p }

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
	keepNone := func(c *raft.ReloadableConfig) { c.TrailingLogs = 1 }
	if err := s.node.elections.Reload(s.node.raft, keepNone); err != nil {
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

// Snapshot takes a snapshot now, and keeps the log as it is.
func Snapshot(s *Store) error { return s.node.raft.Snapshot().Error() }

// VerifyMemory compares the state in memory with its digest at every tick, until ctx ends.
func VerifyMemory(ctx context.Context, s *Store, ticks <-chan time.Time) {
	IntegrityOf(s).verifyMemory(ctx, ticks)
}

// LastIndex returns the index of the last entry in a member's log.
func LastIndex(s *Store) uint64 {
	last, _ := s.node.position()
	return last
}

// SetElectionTimeout changes how long a member waits for a leader, and for votes.
func SetElectionTimeout(s *Store, timeout time.Duration) {
	s.node.elections.SetBounds(election.Bounds{Lease: timeout, Heartbeat: timeout, Election: timeout})
}

// OnVerification calls registered each time that a member has asked Raft to verify its lead, once Raft counts answers
// for that. verified is what Raft finds.
func OnVerification(s *Store, registered func(verified raft.Future)) {
	// Raft queues this many verifications, so that it has registered the first three once it accepts as many after
	// them.
	const queued = 64
	verify := s.reads.verifyLeader
	s.reads.verifyLeader = func() raft.Future {
		f, verified := verify(), verify()
		for range queued + 2 {
			verify()
		}
		registered(verified)
		return f
	}
}

// AwaitAcknowledgment returns once a server has acknowledged something that a leader has sent after the call.
func AwaitAcknowledgment(ctx context.Context, leader, server *Store) error {
	servers := []raft.Server{{ID: server.node.id, Suffrage: raft.Voter}}
	return leader.node.acks.Begin(leader.Term(), "", servers).Await(ctx)
}

// ChangeError is the error of a change of the Raft configuration, by that of Raft.
func ChangeError(err error) error { return changeError(err) }
