// Package authority keeps the signing authorities of the trust domains that this cluster is the authority for.
//
// Each member has keys of its own: for each hosted domain an X.509 CA, below an anchor of its [upstream.Upstream], and a JWT
// key. Private keys stay on the member, in its data folder or in memory; what is replicated is the public side, one row an authority,
// and the domain's trust bundle, which is nothing but the union of what verifies those rows.
//
// An authority is prepared (published, not signing), active (signing), retiring (published until all that it signed
// has expired) and then gone. An operator can end one sooner: tainted, it signs no more and what it signed is renewed;
// revoked, it verifies nothing any more either, as far as this cluster decides that. [plan.Next] holds every rule of that life as one pure function; the [Manager] runs it on
// each change of the tables and at the moment that Plan itself names, makes the keys that a plan asks for, and then
// runs Plan again inside the transaction that carries it out, so that what is decided and what is true cannot part.
// A member acts on its own authorities only; the leader ends what a removed or lost member left ([plan.ForLost]).
//
// What this package promises:
//
//   - What verifies an authority is in the bundle for three refresh hints before the authority signs, unless nobody
//     else in the domain can sign, or its predecessor is about to run out, which raises an alarm.
//   - What verifies it stays there until the last SVID that it can have signed has expired, unless an operator revokes it.
//   - What was revoked does not come back: not by a restart, a restore, or an upstream that was not told.
//   - Nobody ends another member's authority before its time, by whatever clock, but an operator.
//   - The sequence of a hosted bundle rises by one with each change of what the document says (its keys or its
//     refresh hint), in the transaction that makes the change; never otherwise, and never down: not when a domain is
//     deleted and created again, nor when an operator restores a snapshot.
//   - Each version of a hosted bundle is in the history, with a statement that continues the one before it, signed by a JWT
//     authority that the version before has: inside the transaction that makes the version if the member that runs it holds such
//     a key in its memory, and else at once after it by one that does (statetend.go). Where no such key is left the chain starts anew and says so.
//   - Some member can sign at every moment from the first start. One that cannot passes the request on.
//   - A signature is made only after its line in the audit log, only after the exact bytes to be signed have passed
//     [Lint], and only by a member that heard from the leader within the signing grace.
//   - Names below /entente/ are issued to members of this cluster and to nobody else.
//
// What it never does: let a private key out of its [keys.Store], keep one in Raft or the log, or write to Raft for a
// signature.
//
// An upstream that has anchors of its own ([upstream.AnchorSource]) is followed: [plan.Anchors] holds the rules by which they come into the
// bundle, before anything is signed below them, and leave it; anchorfeed.go carries them out, and anchorservice.go shows them.
//
// Read lifecycle.go first, then publication.go and transition.go; distrust.go and steer.go are what operators do, watch.go
// is how holders of SVIDs learn of it; leaf.go, token.go and lint.go say what an SVID is;
// statement.go is who states a version; signing.go is the way of one signature, issuebatch.go of many; issuelimit.go holds callers to a rate, and zlint.go has
// a second look at what was signed. keys.go says where private keys can be.
package authority
