// Package entry has the registration entry: which workloads, by their selectors, have which SPIFFE ID from which
// agents.
//
// An [Entry] that exists is valid; [Parse] makes one of a message and returns errors for its sender. Selectors are
// texts of the form TYPE:VALUE, such as unix:uid:1000, with the names that SPIRE gives them. Everything here is pure:
// the tables are in package registration.
package entry
