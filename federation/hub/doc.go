// Package hub implements both sides of a hub: a cluster that attests the bundles of trust domains to other clusters.
//
// A hub serves a bundle map, which has its hosted domains and those that it attests by the relationships with them. The
// [Publisher] logs the versions in this cluster's map and sends the map over streams. (The bundle endpoint serves the
// same map to clusters that poll it.)
//
// A cluster that takes domains from a hub stores the hub's attestations in [relationship.HubBundles]. The [Importer]
// reads the map from the hub's endpoint or receives its changes over a stream, compares each entry with what is stored,
// and writes the differences. An invalid entry, such as a rollback, is recorded and skipped; a map is refused as a
// whole only if its form is malformed. Which attestation counts for a domain is decided where it is used, by
// [trust.Sources.Decide]: the attestation of a hub never replaces a domain's own bundle, and is not passed on.
//
// On the leader, the [Reconciler] keeps the validity of each hub's map up to date, marks attestations whose bundle has
// expired, and deletes those that are not covered by the relationship with the hub any more.
package hub
