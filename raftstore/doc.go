// Package raftstore keeps replicated tables: rows of protobuf messages by key, the same on every member of a Raft
// group, changed by transactions that run on any of them. It does not know the meaning of the rows.
//
// # Reading and writing
//
// A room declares a [Table] for each kind of row that it owns. [Store.Update] runs a transaction:
//
//	var relationships = raftstore.NewTable[*statev1.Relationship]("relationships")
//
//	revision, err := store.Update(ctx, func(tx *raftstore.Tx) error {
//		row, ok, err := relationships.Get(tx, "example.org")
//		if err != nil || !ok {
//			return cmp.Or(err, ErrNoSuchRelationship)
//		}
//		row.Value.State = statev1.State_STATE_SUSPENDED
//		return relationships.Put(tx, row.Key, row.Value)
//	})
//
// The function runs on this member's state. What it read and wrote becomes a command: the revision of each row that it
// read, the prefixes that it listed, and its changes. The command goes to the leader and through Raft, and every member
// makes the changes if everything that was read is unchanged. Otherwise the function runs again on the newer state.
// Transactions are therefore strictly serializable, and Apply contains no rule of any room.
//
// [Store.View] is this member's present state; [Store.Read] waits until that is as new as requested. [Store.Watch]
// delivers every change in order, and package feed has the loops around it: the latest state, every batch, or the
// affected keys.
//
// # What it promises
//
// When a write returns, a majority has it on disk and this member has applied it. The outcome of a write is never
// guessed: a command is sent again under the same ID until its outcome is known, and a table of outcomes, replicated
// and bounded, prevents it from being applied twice. A caller that cannot get the outcome receives [ErrUnknownOutcome];
// a command that was not applied by then is not applied once its member's next one is, unless older ones were still
// open.
//
// Revisions are Raft indexes. That of a prefix is of its last change, deletions included. Deletions are remembered one
// by one for the last 16,384; the revision of an older one becomes a floor for every prefix of its table. Preconditions
// compare prefixes with the revision at which a transaction ran, which is far above any floor, so that they stay exact.
//
// One command is at most 512 KiB, otherwise the write fails with [ErrTooLarge]. A room stages a larger change in
// several transactions, invisible to readers, and switches to it in one small one. Fields and tables that a member does
// not know are kept unchanged. Without a quorum writes fail with [ErrNoLeader], and stale reads work.
//
// # A restarted member
//
// Each member records up to which revision it publishes its state before it does: on disk at once for the tables that
// are declared with [RecordsNow], and soon for the others. After a restart it loads exactly that much of its snapshot
// and log, before anything of it is visible. [Store.Serving] reports when it may be served.
//
// # What it never does
//
// It never blocks Apply for a reader or a watch, never lets a member continue that could not apply an entry, and never
// lets one lead whose disk hangs: every call to the log store is timed, and beyond the limit the member leaves Raft
// (see Config.Fatal).
//
// # The floors
//
//   - internal/disk: the log, the stable store and the snapshots, each call timed; internal/applied: the record of what
//     was published
//   - internal/transport: Raft's messages between members; internal/quorum: proves by their answers that a member
//     leads; internal/election: how long a member waits for a leader
//   - internal/machine: the state, and how entries change it; snapshot: the format of states on disk and of backups
//   - internal/history: the latest changes, for watches
//   - internal/commit: on the leader, which commands share an entry
//   - this package: the store. node.go runs Raft, leadership.go follows who leads, sender.go sends commands to the
//     leader, read.go makes reads linearizable, restore.go replaces the whole state
//   - feed follows tables; membership keeps who belongs to the cluster; raftstoretest has stores for tests
//
// Start reading at transaction.go, which records a transaction, and internal/machine/apply.go, which applies it.
package raftstore
