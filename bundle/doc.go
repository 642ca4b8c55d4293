// Package bundle holds SPIFFE trust bundles: the value, its JSON document, the endpoint that serves it and the client
// that fetches it.
//
// A [Bundle] is the set of keys by which the SVIDs of one trust domain are verified. It is immutable, always well
// formed, and always knows which domain it belongs to; there is no way to merge two of them. [New] builds one from
// keys, [Parse] from a document, [FromRow] from what is stored.
//
// # The document
//
// Documents are read tolerantly and written strictly. [Parse] ignores what the standard tells a reader to ignore and
// says what that was (see [Ignored]); it refuses what is ambiguous or broken, so that two readers of one document never
// come to trust different keys. [Bundle.Marshal] yields the same bytes for the same content, whatever order the keys
// came in. [ParseMap] and [MarshalMap] do the same for SPIFFE bundle maps.
//
// The content that counts is the set of usable keys. [Bundle.Digest] and [Bundle.SameKeys] look at nothing else:
// neither at the order, nor at the refresh hint, nor at the sequence.
//
// # History and statements
//
// [Bundle.Record] says what a new version changes in the history of its domain, [FromVersion] builds an old one anew,
// and [Differences] says in words what is different between two. A [Statement] is a domain's signed word on one
// version; each names the one before, so that [FollowChain] can tell whether what a reader is shown continues what it
// saw. [CompareViews] says whether two sources contradict each other. docs/STATEMENTS.md has the format.
//
// # Serving
//
// A [Handler] answers from memory what was last given to [Handler.Publish]. Documents are rendered once a publication.
// A [Server] owns the listener, TLS and the goroutines around a handler, for either profile: https_spiffe
// ([SVIDSource]) or https_web ([CertificateFiles]).
//
// # Fetching
//
// A [Client] fetches from an [Endpoint]. Whatever the other side does, a fetch ends within a bounded time, holds a
// bounded number of bytes, and yields a whole valid bundle or an error with a name: [Reason] gives the name as a metric
// label. The client decides whether a document is authentic and well formed. Whether it may replace the one before it
// is decided elsewhere.
//
// [ParseTrustDomain] and [ParseID] parse names by the SPIFFE ID standard, lengths included; [VerifySVID] verifies an
// X509-SVID by all rules that the standard has for validators.
//
// Start reading at bundle.go, parse.go, handler.go and client.go.
package bundle
