package raftstore

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ententehq/entente/raftstore/internal/disk"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// Digest is the digest of everything that is replicated, after all entries up to a Raft index. Members that applied the
// same entries have the same.
type Digest = machine.Checkpoint

// DigestFormat is the version of what a [Digest] covers. Digests of different formats are not comparable.
const DigestFormat = machine.DigestFormat

// Integrity is what a store has to compare its state with that of the other members, and to be rebuilt from them.
type Integrity struct{ store *Store }

// IntegrityOf returns the integrity of an open store.
func IntegrityOf(s *Store) Integrity { return Integrity{s} }

// Digests returns the digests at the latest checkpoints, oldest first. There is one every
// Timing.CheckpointEntries. After a start
// there are none until the first checkpoint is passed.
func (i Integrity) Digests() []Digest { return i.store.machine.Checkpoints() }

// Diverged stops this member, whose state is not that of the others, as evidence describes. It does not start again
// before it is repaired.
func (i Integrity) Diverged(evidence string) {
	err := fmt.Errorf("the state of this member is %w: %s", ErrDamaged, evidence)
	if markErr := i.store.node.disk.Refuse(evidence); markErr != nil {
		err = fmt.Errorf("%w (and record that: %w)", err, markErr)
	}
	i.store.fail(err)
}

// Abandon stops this member, because the cluster was recovered without it, as reason describes. It does not start again
// with this data folder.
func (i Integrity) Abandon(reason string) {
	err := fmt.Errorf("member stopped: the data folder is %w: %s", ErrAbandoned, reason)
	if markErr := i.store.node.disk.Abandon(reason); markErr != nil {
		err = fmt.Errorf("%w (and record that: %w)", err, markErr)
	}
	i.store.fail(err)
}

// Remove stops this member, because it was removed from the cluster, as reason describes. It does not start again with
// this data folder.
func (i Integrity) Remove(reason string) {
	err := fmt.Errorf("member stopped: the data folder is %w: %s", ErrRemoved, reason)
	if markErr := i.store.node.disk.Remove(reason); markErr != nil {
		err = fmt.Errorf("%w (and record that: %w)", err, markErr)
	}
	i.store.fail(err)
}

// Start returns the number of this start of the member.
func (i Integrity) Start() uint64 { return i.store.incarnation }

// verifyEvery is how often the state in memory is compared with the digest that was kept while it was written.
const verifyEvery = 24 * time.Hour

// verifyMemory compares the state in memory with its digest at every tick, until ctx ends.
func (i Integrity) verifyMemory(ctx context.Context, ticks <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		err := i.store.machine.State().Verify()
		i.store.metrics.MemoryMatches(err == nil)
		if err != nil {
			i.store.log.Error("the state in memory does not match its digest", "error", err)
		}
	}
}

// Rebuilt is what a member begins with whose files were deleted by an order of the cluster.
type Rebuilt = disk.Rebuilt

// Rebuild deletes the log, the snapshots and the votes in the folder of a store that is not open. The store then opens
// with nothing, under the same identity, and receives its state from the others. The member must have lost its vote
// before, by a committed change, because it no longer knows how it has voted.
func Rebuild(dir string, with Rebuilt) error {
	if err := disk.Rebuild(dir, with); err != nil {
		return fmt.Errorf("delete the log and the snapshots in %s: %w", dir, err)
	}
	return nil
}

// RebuiltBy returns the ID of the order by which this member's files were deleted last; empty: they never were.
func (i Integrity) RebuiltBy() (string, error) { return i.store.node.disk.Order() }

// LastIncarnation returns the number of a member's last start whose commands are in the present state.
func (i Integrity) LastIncarnation(member Server) uint64 {
	return i.store.machine.State().Incarnation(string(serverID(member.MemberID, member.Identity)))
}

// Demote removes the vote of a member, which stays in the cluster and receives the log. [Servers.AddVoter] gives it
// back.
func (s *Servers) Demote(ctx context.Context, memberID string) error {
	id, _, err := s.find(memberID)
	if err != nil {
		return fmt.Errorf("remove the vote of member %s: %w", memberID, err)
	}
	return s.change(ctx, "remove the vote of member "+memberID, func() raft.Future {
		return s.node.raft.DemoteVoter(id, 0, 0)
	})
}
