// Package svid defines what an X509-SVID, a JWT-SVID and a signing certificate contain, and checks each of them before
// it is signed.
//
// [ParseX509Request] and [ParseJWTRequest] read requests from outside. [NewLeaf] and [CATemplate] build certificates,
// [TokenHeader] and [SignToken] build tokens. [LintLeaf], [LintCA] and [LintClaims] are the rules of the SPIFFE
// specifications: the exact bytes to be signed pass them, or nothing is signed and the error wraps [ErrLint].
//
// The package keeps no state. Who may have an SVID, and which authority signs it, is decided above.
package svid
