// Package registration decides which agents there are, and which SPIFFE IDs their workloads have.
//
// An agent is the process on a node that attests workloads. A [Room] admits it by a one-time token
// ([agenttoken.Token]), by what shows its node (package nodeattest), or again by the key with which it was admitted
// before, and issues it the ID spiffe://<home>/entente/agent/<name>. An entry ([entry.Entry]) gives a SPIFFE ID to the
// workloads with some selectors, on one agent or on those that it selects. Both are replicated rows.
//
// Agents are streamed the entries that concern them, first the whole state and then differences, from the [Index] of
// all entries in memory. For an entry of its own an agent has SVIDs signed: ID, lifetime and DNS names are those of the
// entry, and the certificate request gives the key alone. Everything else is refused. What an agent may call is decided
// by package access, from the agent's row and not from a grant.
//
// A banned agent has no streams, no SVIDs and no way to attest again, until it is evicted. An evicted one attests by
// new evidence. Neither ends by the restore of a snapshot. An entry whose author could not write it now issues
// nothing, and neither does one whose ID has since been given a role that it did not have when the entry was written,
// so that who may write entries for an ID does not come into a role.
//
// Nothing is written to the store for a signature or a renewal.
package registration
