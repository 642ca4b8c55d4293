// Package xds serves the routes of package routing to gRPC clients and to Envoy, over the aggregated discovery service of
// xDS: state of the world and delta.
//
// A stream begins with the caller's verified SVID, from which come its rights, and with the node that the client claims to
// be, from which come its [Client]: what kind of program it is and where it runs. Nothing that a node claims gives rights.
// Streams of one kind, one locality and one set of rights share a variant, and a variant builds each resource once, when
// the first of its streams asks for it.
//
// Start reading at [Cache], which answers go-control-plane's server: cache.go opens and closes streams, flush.go carries
// changes to them, answer.go decides what one stream has to be sent. What is sent is made by pure functions: spill.go turns
// a [routing.Plan] into priorities for clients that know no overprovisioning, assignment.go, cluster.go, route.go,
// listener.go and secret.go write the messages, and tls.go says whom a client has to expect. check.go refuses to send what
// the strictest client would choke on.
//
// The version of a resource is a digest of its content, the same on all members. A client that comes back, to this member
// or to another, is sent what differs from what it has, and nothing else.
package xds
