// Package client is the Go client of an Entente cluster.
//
// [New] returns a [Client], a connection to one member of the cluster. It moves to another member when the present one
// is lost. Each service of the API has an accessor, such as [Client.Bundles]; requests and responses are the protobuf
// messages of package api/entente/v1. A client authenticates with an X509-SVID (from files, from PEM or from a
// go-spiffe source) over TLS 1.3, or through the admin socket of a member on the same machine.
//
// On top of the services the package has what most programs need:
//
//   - [X509Source] issues an X509-SVID for a key that never leaves the process, renews it, and keeps the bundles of all
//     trust domains fresh. It implements the sources of go-spiffe, so that [spiffetls] and tlsconfig accept it.
//   - [BundleSource] keeps the bundles fresh for a program that has an SVID already, or needs none.
//   - [Lease] registers instances of services and renews their lease.
//   - [Client.WatchHint] follows the answer to "where should requests for this service go?".
//
// # Errors
//
// Errors of calls are of type [*Error]. Compare them with the sentinels of this package:
//
//	if errors.Is(err, client.ErrNoLeader) { ... }
//
// They carry the gRPC status too, for status.Code and status.FromError.
//
// A member that has no leader answers stale reads from the state that it has. [Unconfirmed] finds that in the header of
// an answer, and [WithUnconfirmed] reports it for all calls of a client.
//
// # Goroutines
//
// All types are safe for concurrent use. Sources and leases run goroutines until they are closed; a client must be
// closed after everything that uses it. Messages that the package returns belong to the caller, unless a method
// documents otherwise.
//
// The package does not link the server: neither Raft, nor Vault, nor ACME, nor certificate linting.
//
// [spiffetls]: https://pkg.go.dev/github.com/spiffe/go-spiffe/v2/spiffetls
package client
