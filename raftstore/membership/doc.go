// Package membership keeps who the members of a cluster are, and how one becomes a member and ceases to be.
//
// A member is identified by its ID and by its identity key, which it generates at its first start
// ([memberid.LoadIdentity]) and never sends to others. The key's digest is part of the Raft server ID: what Raft agrees
// on is which keys belong to the cluster. Nothing of this depends on a certificate that can expire.
//
// A new member comes with a join token, which package join describes. The member that serves the join binds the
// joiner's ID and key to the token in one transaction, and the leader adds the joiner to Raft after it has verified the
// key at the joiner's address. It is added without a vote first and gets the vote when it has caught up, so that a
// joiner that never starts takes no majority away.
//
// The [Manager] composes what runs all the time, each part a type of its own:
//
//   - heartbeats sends a heartbeat a second to the leader, with the reports of the rooms' sections ([Section]). None of
//     that goes through Raft; package memory has the sections' type.
//   - leader receives them on the leader, stores a row only when a member begins or ceases to be alive, and compares
//     the clocks: [Manager.ClockSane] reports whether this member's clock is near a majority's.
//   - changes changes the Raft configuration, on the leader; leaderClient forwards calls to it.
//   - joins makes tokens and admits joiners; announcer keeps this member's row up to date.
//
// Members whose addresses have changed find each other by signed statements (package address); the leader commits the
// new addresses. Package autopilot decides which dead members the leader removes by itself. Package recovery keeps
// which members the cluster was recovered without.
//
// Package directory answers which identity keys are those of members. Start reading at [Config], and at rules.go, which
// has the decisions.
package membership
