// Package attest is the agent's own identity: its key on disk, its attestation to the cluster, and its X509-SVID, which
// it keeps fresh.
//
// A [Node] makes its key at the first start and keeps it in its data folder (mode 0600), with the ID that it was given
// and the members of the cluster. It attests itself with a token once, and from then on by that key alone: after a
// restart, and after its SVID has expired. It sends nothing to a server whose identity key is neither in the token nor
// among the members that the cluster named last.
package attest
