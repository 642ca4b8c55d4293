// Package federation keeps the relationships with foreign trust domains, and the bundles that belong to them.
//
// A relationship defines where a domain's bundle comes from and how its endpoint authenticates. The [Service] lets
// operators create, change, suspend and delete relationships. The [Manager] connects the packages below, each of which
// owns its state and its loop:
//
//   - relationship: the rules and the rows: fields, [relationship.Accept], [relationship.Judge], intervals, alarms
//   - mirror: the tables in memory, parsed and indexed
//   - observation: what members know about fetching, in the leader's memory
//   - intake: stores bundles from every source, and raises alarms
//   - fetch: polls bundle endpoints
//   - peer: streams to other clusters
//   - hub: bundle maps, given and received
//   - invitation: agreements with clusters that are not known yet
//
// This package has the service, the operators' transactions, what a restore keeps, and the freshness reconciler, which
// runs on the leader.
//
// # What is stored
//
// A bundle has a row only while there is a relationship with its domain, and is deleted in the transaction that deletes
// the relationship. A domain that the cluster hosts is never foreign: the transactions that create a domain or a
// relationship read the other's table, so that two that race cannot both succeed.
//
// An unchanged refresh writes nothing. The member that fetches a relationship knows when that was and with what result.
// It reports to the leader with its heartbeats, and the leader commits only changes of the validity of a relationship,
// such as from fresh to stale. Until an owner has reported to a new leader, its relationships keep their validity, for
// at most three refresh intervals.
//
// # What it never does
//
// Nothing here removes a bundle because a peer is unreachable or sends invalid data. A sequence never goes back, and a
// sequence that was seen never stands for other keys, unless an operator resets it for one relationship. Every refusal
// has a reason, in the log, in a metric and, for the content of a bundle, in the audit log. A suspended relationship is
// neither fetched nor relied on, not even to authenticate another one's endpoint.
//
// Start reading at package relationship, which has the rules; then [fetch.Poller], which applies them to one
// relationship, and manager.go, which connects the parts.
package federation
