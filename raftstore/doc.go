// Package raftstore keeps replicated tables: rows of protobuf messages by key, the same on every member of a Raft group, changed
// by transactions that run on any of them. It knows nothing of what the rows mean.
//
// # Reading and writing
//
// A room declares a [Table] for each kind of row it owns. [Store.Update] runs a transaction:
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
// The function runs on this member's state. What it read and wrote becomes a command: the revision of each row that it read,
// the prefixes that it listed, and its changes. The command goes to the leader and through Raft, and every member makes the
// changes if all that was read is still so. Otherwise the function runs again on the newer state. Transactions are therefore
// strictly serializable, and no rule of any room is ever run by Apply.
//
// [Store.View] is this member's present state; [Store.Read] waits until that is as new as asked. [Store.Follow] is the loop of
// a room that keeps something in line with the state, and [Store.Watch] delivers every change in order.
//
// # What it promises
//
// When a write returns, a majority has it on disk and this member has applied it. What became of a write is never guessed:
// a command is sent again under the same ID until its result is known, and a table of results, replicated and bounded, keeps
// it from being applied twice. Who cannot be told gets [ErrUnknownOutcome]; the command, if it was not applied by then, will not
// be any more once its member's next one is, unless older ones were still open.
//
// Revisions are Raft indexes. That of a prefix is of its last change, deletions included. Deletions are remembered one by one for
// the last 16,384; when an older one is given up, its revision becomes a floor for every prefix of its table. Preconditions
// compare prefixes with the revision at which a transaction ran, which is far above any floor, so that they stay exact.
//
// One command is at most 512 KiB, which [ErrTooLarge] says; a [Set] holds what is larger. Fields and tables that a member does
// not know stay as they are. Without a quorum writes fail with [ErrNoLeader], and stale reads work on.
//
// # What it never does
//
// It never blocks Apply for a reader or a watcher, never lets a member go on that could not apply an entry, and never lets one
// lead whose disk hangs: every call to the log store is timed, and beyond the limit the member leaves Raft (see Config.Fatal).
//
// # Where to start reading
//
// transaction.go records, update.go and delivery.go bring a command to the leader, scheduler.go decides there what shares an
// entry, apply.go is the state machine. state.go is the state, history.go what watches are fed from, read.go how a read is made
// linearizable. Package raftstoretest has stores for the tests of other packages.
package raftstore
