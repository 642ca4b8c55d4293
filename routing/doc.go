// Package routing answers which instance of a service a caller should call: the nearest one that they can both reach
// and trust.
//
// Its work is divided into floors. [registry] stores instances and the leases that keep them. [exchange] shares
// instances with other clusters. [plan] is the pure arithmetic that turns the endpoints of a service into priorities
// and loads for callers in one locality. [xds] serves the plans to gRPC clients and to Envoy. This package is above
// them: it answers hints (hint.go) and what-if questions (whatif.go), stores the rules that modify the configured
// policy (rules.go), and wires everything ([New]).
//
// Trust decides what is offered at all. An instance of a foreign domain is offered only while the relationship with
// that domain is active and its bundle has not expired, and behind all others while the bundle is stale. A hint lists
// what is left out, with the reason. The [Trust] interface looks this up; the node implements it.
//
// The package never resolves a name, never opens a connection to an instance, and never guesses its health.
//
// Start reading at [Planner.PlanFor], which is the way from the tables to a plan.
//
// [plan]: https://pkg.go.dev/github.com/ententehq/entente/routing/plan [registry]:
// https://pkg.go.dev/github.com/ententehq/entente/routing/registry [exchange]:
// https://pkg.go.dev/github.com/ententehq/entente/routing/exchange [xds]:
// https://pkg.go.dev/github.com/ententehq/entente/routing/xds
package routing
