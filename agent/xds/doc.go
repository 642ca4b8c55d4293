// Package xds serves the routes of a cluster to the programs of a node: gRPC and Envoy.
//
// A [Relay] holds one delta stream to a member for each identity and kind of client, and what it received, whatever the
// number of programs ([Relay.Subscribe]). The stream is opened with the identity's own credentials, so that the member
// decides the rights of each as if it had connected itself. Members give the same resource the same version: after the
// loss of a member the stream to the next one states what is there, and brings what differs. The programs' own streams
// stay open, and one that does not read delays no other.
//
// While no member can be reached everything stays as it is, and programs that start are served from what is there. A
// suspension of trust in another domain cannot be received then: instances of foreign domains, which members mark, are
// left out after [Config.MaxStale].
package xds
