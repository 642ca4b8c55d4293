// Package authority maintains the signing authorities of the hosted trust domains, and serves the API for them.
//
// Each member has keys of its own: for each hosted domain an X.509 CA below an anchor of its upstream, and a JWT key.
// Private keys stay on the member. The public side is replicated: one row for each authority, and the domain's trust
// bundle, which is the union of what verifies those rows.
//
// The package has the loops and the service; what they decide and use is below it:
//
//   - plan: the rules, as pure functions
//   - table: the replicated tables, and how an action changes a row
//   - keys: where private keys are
//   - upstream: what signs CA certificates
//   - publish: the content, sequence, history and statements of hosted bundles
//   - anchor: the anchors of upstreams
//   - svid and issue: X509-SVIDs and JWT-SVIDs
//   - domain: the service for hosted domains and their settings
//
// [Manager] wires them. On each change of the tables, and at the time that the rules name, the reconciler evaluates
// [plan.Next] and the executor evaluates it again inside the transaction that carries it out, so that a decision always
// agrees with the rows that it changes. The preparer makes the keys that a plan requires. A member changes only its own
// authorities; the leader ends those of removed and lost members.
//
// What the package guarantees:
//
//   - A root that a member makes itself is in the bundle long before it signs: it is published when a quarter of the
//     life of the one before has passed, and takes over after half of it.
//   - What verifies an authority is in the bundle for three refresh hints before the authority signs, unless no other
//     authority of the domain can sign, or its predecessor is about to expire, which raises an alarm.
//   - It stays there until the last SVID that the authority can have signed has expired, unless an operator revokes it.
//   - What was revoked does not return: not by a restart, a restore, or an upstream that does not know of it.
//   - Only an operator ends an authority of another member before its time, whatever the clocks show.
//   - The sequence of a hosted bundle rises by one with each change of the document, in the transaction that makes the
//     change. It never falls: not when a domain is deleted and created again, nor when a snapshot is restored.
//   - Some member can sign at every moment after the first start. A member that cannot sign forwards the request.
//   - What cannot be recorded in the audit log is neither signed nor changed.
//
// What it never does: export a private key from its [keys.Store], keep one in Raft or a log, or write to Raft for a
// signature.
//
// Start reading with plan/lifecycle.go, then manager.go, reconcile.go and executor.go; operator.go has the operator
// actions.
package authority
