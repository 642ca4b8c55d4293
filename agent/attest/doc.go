// Package attest is the agent's own identity: its key on disk, its attestation to the cluster, and its X509-SVID, which
// it keeps fresh.
//
// A [Node] makes its key at the first start and keeps it in its data folder (mode 0600), with the ID that it was given
// and the members of the cluster. It attests itself with a token or with what shows its node once, and from then on
// by that key alone: after a restart, and after its SVID has expired. It sends nothing to a server that is none of the
// members of a new token, and then of those that the cluster named last, by their identity keys; or, with a [Trust], to
// one that does not prove the X509-SVID of a member by a bundle.
package attest
