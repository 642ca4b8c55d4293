// Package access decides who may call which method of the API.
//
// Each call on the API port and on the admin socket has a [Caller]. It comes from the connection and never from the
// request: the uid and pid behind a Unix socket, or the SPIFFE ID that the TLS handshake verified. One table, [Rules],
// lists every method that can be called, the roles that may call it, how far a role has to reach, and which of its
// calls are audited. A method without a rule is denied, and a test fails if a method of the API has no rule.
//
// A [grant.Grant] gives one SPIFFE ID one role, in one hosted trust domain or in all of them, and for the roles issuer
// and discovery optionally below a path prefix only. [Decide] takes a rule, a caller, its grants and the target of the
// request. It returns nil or a [Refusal], whose message names what is missing and the command with which an
// administrator can grant it. Decide is a pure function; start reading there.
//
// The rule's [Reach] is how far a role has to reach:
//
//   - Cluster: the method concerns the cluster as a whole, such as its members, its relationships, or the creation and
//     deletion of hosted domains. It needs a grant for every domain.
//   - Domain: the method concerns one hosted domain, or a SPIFFE ID in it. It needs a grant for that domain or for
//     every domain. If a request may leave the domain out to mean all of them, it needs a grant for every domain.
//   - Listing: the response spans domains. A grant for any domain suffices, and the response is reduced to what the
//     caller's grants cover, so the administrator of one domain can use the same commands as everybody else.
//   - Bundles: like Listing, but every caller with a role sees the bundles of foreign domains, because it has to verify
//     callers from there.
//   - Anywhere: a grant for any domain suffices. Services and hints are of this kind: an instance belongs to no domain.
//
// An agent has no grant: [Rule.Agents] names the few methods that it may call, by an ID that the server issues to
// agents alone and while it is attested and not banned. What it may have issued is decided by its entries, in package
// registration.
//
// If the SPIFFE ID that a call affects is known only inside its transaction, the room calls [Permits] there. A room
// whose responses depend on the domains that a caller may see calls [ScopeFrom]. The API issues no ID below /entente/
// to any caller.
//
// No role grows into another. An issuer is refused the IDs that have a role which it could not grant, unless its grant
// lists that role ([grant.Grant.MayIssue]). A caller that sets the verification keys of a foreign domain could take
// every role of its IDs: see [PermitsVerification]. For the same reason the roles of callers whose domain only a hub
// attests do not count. A grant of the role discovery can own services. Instances of an owned service count only under
// IDs of its owners: see [DecideInstance]. docs/security.md has the threat model.
//
// [Guard] applies this to every gRPC call. It turns panics into errors, authenticates and authorizes the caller, and
// records a call that changes something in the audit log before the call runs; without that line the call does not run.
// It ends a stream when the grants that allowed it are gone. [Guard.Tap] refuses a call that no message could make
// permissible, before the message is read. Below, package grant has the grants and their tables, package admission
// bounds the calls under way, and package audit is the audit log.
package access
