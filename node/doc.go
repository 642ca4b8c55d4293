// Package node runs one member: it builds the rooms, connects them, opens the listeners, and starts and stops
// everything in order. It holds no rule about trust.
//
// Start with [Run], and with type member in member.go: build calls one function for each room, which sits in the file
// of that room together with the adapters that the room needs from others, and start runs what is built. serve.go has
// the gRPC servers, endpoint.go the SPIFFE bundle endpoint, port.go the one TLS port,
// reload.go what SIGHUP does.
//
// A member starts from below: operations, the port, the store, the membership, then the rooms, and last the listeners
// for callers. It stops in reverse order, so no caller reaches a room that is stopping. Without a quorum it keeps
// running: it serves bundles from memory, and writes fail with a reason.
//
// The packages below:
//
//   - config reads the configuration file.
//   - port is the TLS port, for members, joiners and clients.
//   - lifecycle starts parts of a member, and stops them in reverse order.
//   - operations is the HTTP listener for metrics and health.
//   - debug describes the process for a report of a defect.
//   - process tunes the Go runtime of the process.
//   - supervisor reports to systemd.
//   - acmeorders makes members take turns at an ACME server.
//   - inspect is what commands do without a member: read bundles and snapshots, check Vault.
//   - xdsbootstrap writes bootstrap files for gRPC clients.
package node
