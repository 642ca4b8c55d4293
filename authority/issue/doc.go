// Package issue signs X509-SVIDs and JWT-SVIDs from requests, on this member or on another one that can.
//
// [Issuer] follows the tables and keeps what it signs from as one immutable [State] of one revision. A request is
// parsed and checked by package svid, signed with the newest active authority of this member, and forwarded to another
// member if this one has no active authority, must not sign now, or cannot reach its key.
//
// What the package guarantees:
//
//   - A signature is made only after its line in the audit log, and handed out only after the second line.
//   - The exact bytes to be signed have passed the rules of package svid.
//   - A member signs only while it had contact to the leader within the signing grace and its clock is right.
//   - Names below /entente/ are issued to members of this cluster for themselves, and to no other caller.
//
// It never writes to Raft. [OwnSVIDs] keeps the SVIDs of the member itself, [Linter] checks signed certificates with
// zlint, and the limiter bounds the rate of each caller.
//
// Start reading with state.go, then forward.go and sign.go.
package issue
