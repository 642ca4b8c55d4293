// Package node is one member: it reads the configuration, builds the rooms, connects them, owns the listeners, and starts and
// stops everything in order. No rule about trust is here.
//
// Start with [LoadConfig], which refuses whatever it does not know, and [Run], which is the life of a member. member.go
// builds the rooms and joins what one needs of another; lifecycle.go starts and stops; trust.go answers from the tables of
// several rooms whom this cluster can verify; publish.go keeps the bundle endpoint equal to the replicated state;
// operations.go is the HTTP listener for those who run the member. The one TLS port has a package of its own, node/port.
//
// A member starts from below: operations, the port, the store, the membership, then the rooms, and last the listeners that
// let callers in. It stops the other way round, so that nobody is let in to what is going away. Without quorum it stays up:
// bundles are served from memory and writes fail with a reason.
package node
