// Package routing tells callers which instance of a service to talk to: the nearest one that they can both reach and
// trust.
//
// An [Instance] is where a service runs: an address, a [Locality], the SPIFFE ID that callers must expect there, a weight
// and a health. Instances are kept in sets, by service and lease (set.go), which can be replaced whole (replace.go, stage.go).
// A lease is one row that its instances name, kept alive by one stream a control plane (hold.go). Renewals are written nowhere:
// they travel to the leader with the heartbeats of the members ([LeaseSection]), live in its memory, and after a change of leader
// each lease has one whole ttl of grace. A lease that runs out makes its instances unhealthy, and removes them later (sweep.go). So
// an instance is removed too late rather than too early, and without a leader none is removed at all.
//
// Rules lie over the configuration, for all services or one (rulebook.go). A [Policy], which they make, turns the instances of a service into a [Plan] for callers in one locality. It is a pure function in integers,
// and the answer is the one that Envoy and Istio would give: docs/ROUTING.md has the formulas, and the places where the
// documentation of those projects and their code disagree. Start reading at [Policy.Plan]; priority.go orders by distance,
// load.go turns health into percentages of load, share.go splits them among localities.
//
// Trust decides what is offered at all: an instance of a foreign domain only while the relationship with that domain is
// active and its bundle has not expired, and behind all others while the bundle is stale. What is left out is named in
// the hint with the reason. Looking this up is the [Trust] interface's, which the node implements.
//
// This package never resolves a name, never opens a connection to an instance, and never guesses its health: it believes
// what was registered, as those who register are allowed to.
package routing
