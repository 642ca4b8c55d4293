// Package membership keeps who the members of a cluster are, and how one becomes a member and ceases to be.
//
// A member is known by its id and by its identity key, which it makes at its first start ([LoadIdentity]) and
// never gives away. The key's digest is part of the Raft server's id, so what Raft agrees on is which keys
// belong to the cluster. Nothing of this depends on a certificate that can expire.
//
// A new member comes with a join token ([Token]), which an operator makes. The joiner checks that the member
// it reaches has an identity key that the token names before it sends the token's secret ([Enter]); the
// member that serves the join binds the joiner's id and key to the token in one transaction, and the leader
// adds the joiner to Raft after it has found that key at the address which the joiner gave. It is added
// without a vote first and gets the vote when it has caught up, so that a joiner which never comes up
// takes no majority away.
//
// The [Directory] answers which identity keys are those of members, from this member's own Raft
// configuration. A member that was away while the membership changed does not know who knocks at its door:
// then it asks a fellow whom it does know, and keeps what it learned in memory until its own configuration
// has caught up.
//
// The [Manager] runs what goes on all the time. Each member tells the leader once a second that it lives, and
// what its rooms have to say ([Section]); none of that goes through Raft. The leader writes a row only when a
// member begins or ceases to be heard. The heartbeats also compare clocks: [Manager.ClockSane] says whether
// this member's clock is near a majority's.
//
// Start reading at [Config], and at rules.go, which holds the decisions.
package membership
