// Package workloadapi serves the SPIFFE Workload API on a Unix socket.
//
// A caller needs no secret: the [Identifier] attests its process when a call begins. Every message of a stream is the
// whole state, and a new one is sent when something in it has changed. A caller without an identity has
// PermissionDenied, with nothing more for the caller: the reason is in the log of the agent.
package workloadapi
