// Package xds serves plans to gRPC clients and to Envoy, over the aggregated discovery service of xDS, in its
// state-of-the-world and its delta form.
//
// A stream starts with the caller's verified SVID, which decides its rights, and with the node that the client claims
// to be, which gives its [Client]: the kind of program and its locality. Nothing that a node claims gives rights.
// Streams of one kind, one locality and one set of rights share a variant, which builds each resource once, when the
// first of its streams subscribes to it.
//
// Start reading at [Cache], which answers go-control-plane's server: cache.go opens and closes streams, stream.go
// answers their requests, variant.go builds resources, update.go distributes changes, and difference.go decides what
// one stream has to be sent. Resources are written by pure functions: spill.go turns a plan into priorities for clients
// that do not compute overprovisioning, assignment.go, cluster.go, route.go, listener.go and secret.go write the
// messages, and tls.go the IDs that a client has to expect. An assignment that the strictest client would reject is not
// sent.
//
// The version of a resource is a digest of its content, equal on all members. A client that reconnects, to this member
// or to another, is sent only what differs from what it has.
package xds
