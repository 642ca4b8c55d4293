// Package plan decides which endpoints of a service a caller uses, and for which share of its requests. It is pure: it
// reads no clock, no table and no network, and all its arithmetic is in integers.
//
// An [Endpoint] is an instance of a service with the state of trust in its domain. A [Policy], built from [Settings],
// turns the endpoints of a service into a [Plan] for callers in one [Locality]. The work has two steps:
// [Policy.Arrange] groups and counts the endpoints once for all callers, and [Arrangement.Plan] computes the priorities
// and loads of one caller from these groups. [Plan.Hint] is the API message of a plan.
//
// The results are those of Envoy and Istio; docs/ROUTING.md has the formulas and lists where the documentation of these
// projects differs from their code. Start reading at [Policy.Plan]: priority.go orders localities by distance, load.go
// turns health into percentages of load, share.go splits them among localities. whatif.go plans for an assumed outage.
package plan
