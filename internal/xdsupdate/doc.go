// Package xdsupdate decides what an xDS stream has to be sent: [Difference] compares what a client is to have with what
// it has, in both forms of the protocol. Members and agents serve xDS by it.
package xdsupdate
