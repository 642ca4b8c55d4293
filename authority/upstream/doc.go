// Package upstream declares what signs the CA certificates of a member, and contains the default implementation.
//
// An [Upstream] signs a CA certificate for a key of the member. One that has anchors of its own also implements
// [AnchorSource], and one that can revoke what it signed implements [Revoker]. [SelfSigned] needs no other system: it
// keeps a root of its own for each hosted domain. Package vaultca implements an upstream with Vault PKI.
//
// [Check] verifies what an upstream returned. Nothing is signed with a certificate that does not pass it.
package upstream
