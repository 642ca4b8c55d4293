// Package exchange shares services between clusters: it exports instances of services to the clusters of foreign trust
// domains, and imports instances from them.
//
// An export offers a service to another cluster, an import requests one from it. Both belong to the relationship
// with a trust domain ([Agreement]) and end with it. What is shared travels over the streams that federation keeps
// between clusters. The unit is a set: the instances of one service in one trust domain of the exporting cluster,
// identified by a digest of its content (set.go).
//
// A [Sync] is the service sync of one such stream, in both directions. Each side subscribes to the sets that it
// imports, with the digests that it has; the other side sends the sets that differ, and each set is acknowledged or
// refused (sender.go, receiver.go). A received set is checked as strictly as a registration (setparse.go) and stored as
// a whole or not at all (store.go).
//
// Imports outlive the stream that brought them for the import ttl. The leader learns from the heartbeats of the members
// which imports are confirmed by a stream ([Liveness]), and marks imports that are not as expired (sweep.go). In the
// same way it learns what peers have acknowledged or refused ([Outcomes]), so that every member can show the state of
// an export.
//
// The package trusts nothing that a peer sends: a peer can only ever change the instances of its own trust domains
// under the imports that an operator created, and within bounds. Imported instances are never exported.
//
// Start reading at [Exchange], which wires the parts, and at [Sync].
package exchange
