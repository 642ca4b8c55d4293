// Package access decides who may call what, and keeps the audit log of what was done.
//
// Each call on the API port and on the admin socket has a [Caller], which is taken from its connection and
// never from anything that the caller says: the uid and pid behind a Unix socket, or the SPIFFE ID that the
// TLS handshake verified. One table, [Rules], names every method that can be called at all, the roles that
// may call it, how far a role has to reach, and what of it goes into the audit log. A method that is not in
// the table is denied, and a test fails when the API has a method without a rule.
//
// A [Grant] gives one SPIFFE ID one role, in one hosted trust domain or in all of them, and for issuers and
// for discovery optionally below a path prefix only. [Decide] takes a rule, a caller, its grants and what the
// request is about, and returns nil or a [Refusal], which says what is missing and the command with which an
// administrator can grant it. It is a pure function; start reading there.
//
// How far a role reaches is the rule's [Reach]:
//
//   - Cluster: what concerns the cluster as a whole, its members, its relationships, the making and ending of
//     hosted domains. Only a grant for every domain will do.
//   - Domain: one hosted domain, or a SPIFFE ID in it. A grant for that domain or for every domain will do.
//     Where a request may leave the domain out and then means all of them, it needs a grant for every domain.
//   - Listing: answers span domains. A grant for any domain will do, and the answer is cut down to what the
//     caller's grants cover, so that the administrator of one domain can use the same commands as everybody else.
//   - Bundles: like Listing, but the bundles of foreign domains are shown to every caller with a role, since
//     whoever holds one domain has to verify its callers from elsewhere.
//   - Anywhere: a grant for any domain will do. Services and hints are such: an instance is not of one domain.
//
// Where the SPIFFE ID that a call touches is known only inside its transaction, the room asks [Permits] there.
// IDs below /entente/ are never issued through the API, to whomever.
//
// [Guard] puts this around every gRPC call: panics become errors, the caller is authenticated and authorized,
// and a call that changes something is in the audit log before it begins, or does not begin. A stream ends when
// the grants that allowed it are gone.
//
// [Log] is the audit log: a file of JSON lines that only its owner can read. Other rooms record their own
// decisions through [Log.Record], and must not carry out what it refuses to record.
package access
