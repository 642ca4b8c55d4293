// Package port is the one TLS 1.3 port that a member serves its fellow members and its clients.
//
// Four protocols share it, told apart by ALPN:
//
//   - entente-raft/1 and entente-member/1 are for fellow members. Both ends prove themselves with their
//     identity keys, which are compared with the cluster's present membership. No date is looked at, so
//     that a cluster whose every certificate has expired still elects a leader.
//   - h2 is gRPC for clients. The member presents its X509-SVID, and the caller must present one that
//     verifies against the bundle of its own trust domain, by the rules of [bundle.VerifySVID].
//   - entente-join/1 admits callers without a certificate. The member presents its identity certificate,
//     which the joiner compares with its token before it sends anything.
//
// A [Port] accepts, checks the caller during the handshake and hands the connection to the [net.Listener]
// of its protocol ([Port.Listener]). gRPC servers and clients use [Credentials], which reads the verified
// [Caller] from a connection that was checked already. Outgoing connections to fellow members
// ([Port.Conn], [Port.Raft], [Port.ProbeIdentity]) are made here too, so that the same rules govern both
// ends. A joiner, which is nobody's fellow yet, uses [DialJoin].
//
// What was true at the handshake need not stay true: every connection is tracked. [Port.Recheck] verifies
// all of them again, after membership or bundles changed, and closes those that fail; a connection also
// ends when the SVID that opened it expires.
//
// The package never resumes a session: a session resumed from a ticket would skip the check of the
// caller, and a ticket got under h2 could be used under entente-raft/1. It never falls back from one
// protocol to another: a caller that offers two of them is refused.
package port
