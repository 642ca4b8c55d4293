// Package port is the one TLS 1.3 port that a member serves to the other members and to its clients.
//
// ALPN selects one of four protocols:
//
//   - entente-raft/1 and entente-member/1 are for members. Both ends authenticate with their identity keys, which are
//     checked against the current membership. Dates do not matter, so a cluster whose certificates have all expired
//     still elects a leader.
//   - h2 is gRPC for clients. The member presents its X509-SVID. The caller must present one that verifies against the
//     bundle of its own trust domain, by the rules of [svid.Verify].
//   - entente-join/1 admits callers without a certificate. The member presents its identity certificate, which the
//     joiner compares with its token before it sends anything.
//
// While the member is starting ([Config.Starting]), it has no state to verify callers under h2 by. It presents the SVID
// that it had before, and passes these connections, unverified, to a listener of their own ([Starting]), whose server
// answers every call with the reason.
//
// A [Port] accepts a connection, verifies the caller during the handshake, and passes the connection to the
// [net.Listener] of its protocol ([Port.Listener]). gRPC servers and clients use [Credentials], which returns the
// verified [Caller] of such a connection. The port also opens the connections to other members ([Port.Conn],
// [Port.Raft], [Port.ProbeIdentity]) and to peers ([Port.DialPeer]), so both ends follow the same rules. A joiner,
// which is not a member yet, uses [DialJoin].
//
// Every connection is tracked. [Port.Recheck] verifies all of them again after a change of membership or bundles, and
// closes those that fail. A connection also ends when the SVID that opened it expires.
//
// Strangers take no places of those that are known. Handshakes are limited for each source; at a limit the oldest
// silent one gives way, and hosts of members have further places. Connections are limited by class: members, callers
// with a grant ([Privilege]), members of other clusters, callers without a grant, and joiners. Within a class no trust
// domain, caller or source takes more than its share. A caller without a grant whose calls are refused again and again
// is disconnected ([AuthInfo.Refused]).
//
// The port never resumes a session: a session resumed from a ticket would skip the check of the caller, and a ticket
// issued under h2 could be used under entente-raft/1. It never falls back from one protocol to another: it refuses a
// caller that offers two of them.
//
// Start reading at accept in handshake.go.
package port
