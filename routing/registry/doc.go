// Package registry stores where services run: instances, the sets that they form, and the leases that keep them.
//
// An [Instance] is an address of a service with a locality, a SPIFFE ID, a weight and a health. Instances are stored in
// sets: the instances of one service that share a lease, have no lease, or were imported from one trust domain
// (set.go). A set is replaced as a whole; a replacement that does not fit into one command is staged as a new
// generation, to which one transaction switches (replace.go, stage.go). Rows of generations that do not count are
// deleted later (collect.go, orphan.go).
//
// A lease is one row that its instances refer to. Its holder keeps it alive over one stream (keepalive.go). Renewals
// are not written to the Raft log: they travel to the leader with the heartbeats of the members, and the [Tracker]
// there compares them with the table of leases. After a change of leader every lease has one whole ttl of grace. A
// lease that runs out makes its instances unhealthy, and deletes them later (sweep.go). So an instance is removed too
// late rather than too early, and without a leader none is removed.
//
// The package never opens a connection to an instance and never guesses its health. It stores what was registered, as
// far as the caller is permitted to register it. An instance of a service with owners counts only under an ID that the
// grant of an owner covers ([grant.Owners]); imported instances follow the list of imports.
//
// Start reading at [Registry], which wires the parts, and at [Catalog], which returns the instances that count.
package registry
