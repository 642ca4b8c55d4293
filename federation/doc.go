// Package federation keeps the agreements to trust foreign domains, and the bundles that come with them.
//
// A [Relationship] says where a domain's bundle comes from and how its endpoint proves itself. The [Service] lets
// operators create, change, suspend and end relationships; the [Manager] keeps each one's bundle up to date by polling its
// SPIFFE bundle endpoint, and stores what passes [Accept].
//
// # What is stored
//
// Two tables, both keyed by the name of the trust domain: [Relationships] and [ForeignBundles]. A bundle has a row only while
// there is a relationship with its domain, and leaves in the transaction that ends the relationship, so that whoever
// follows the table learns of it. A domain that the cluster hosts is never foreign; both rooms look at the other's table
// inside the transactions that create a domain or a relationship, so that two that race cannot both succeed.
//
// An unchanged refresh writes nothing. When and with what result a relationship was last fetched is known to the member that
// fetches it, which tells the leader with its heartbeats; the leader keeps it in memory ([Observations]) and commits
// only what changes the standing of a relationship: fresh to stale, say. Until an owner has reported to a new leader its
// relationships count as what they were, and for no longer than three refresh intervals.
//
// # Who fetches
//
// Each active relationship belongs to one member: the rendezvous hash of its trust domain over the members that the leader
// marks alive. Every member computes this for itself, so ownership moves without anybody handing it over. Two members can
// fetch the same relationship for a moment; that is harmless, for a fetch notes the revisions of what it relied on, the
// operator's decision and the stored bundle, and the transaction that stores its result succeeds only while these stand.
//
// A fetch that fails waits for the relationship's next turn: the bundle's refresh hint, within bounds, give or take a tenth.
// What a member takes over together with others, it fetches one after the other, and then once more at some time within the interval, so that
// the turns of thousands are spread evenly from then on; so it is with what streams kept up to date that broke together.
// [Service.RefreshRelationship] does not wait: it fetches on the member that is asked, at once, and by the same rules.
//
// # Streams
//
// A relationship can name its peer: the cluster that hosts the domain, by its home trust domain. Then one stream per peer carries
// bundles on change, acknowledgements and heartbeats, both ways (peersession.go and peernext.go have the rules of the protocol,
// peers.go says which streams there are). What a peer brings goes through the same [Accept] and the same transaction as what
// is fetched; its heartbeats count as successes; and fetching rests meanwhile. Who is connected and what peers acknowledged is
// in the leader's memory ([PeerReports]).
//
// # Hubs
//
// A relationship can take from its domain's cluster the bundles of other domains, as [Hub] lists them: the hub tells of them over the
// stream (maplog.go and mapserve.go are its side, mapstream.go is that of who takes them), or the owner reads the hub's bundle
// map after its bundle (hubreadings.go says when it is enough to look for it). Either way the same rules judge it (hubtake.go), and store the hub's word on each domain in [HubBundles]. [HubWord] is the rule for what of that counts. What this
// cluster itself attests is what [Attested] returns, which leaves out all that hubs brought.
//
// # What it never does
//
// Nothing in this package ever removes a bundle because a peer is unreachable, or answers with nonsense. A sequence never goes
// back, and a sequence seen once never stands for other keys, unless an operator says so for one relationship. Whatever
// was refused has a reason, which is in the log, in a metric and, for what concerns the content of a bundle, in the audit log.
// A suspended relationship is neither fetched nor relied on, not even to authenticate another one's endpoint.
//
// Start reading at accept.go, freshness.go and schedule.go, which hold the rules; then poll.go, which applies them to one
// relationship, and manager.go, which does so for all.
package federation
