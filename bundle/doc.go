// Package bundle holds SPIFFE trust bundles: the value and its JSON document.
//
// A [Bundle] is the set of keys by which the SVIDs of one trust domain are verified. It is immutable, always well
// formed, and belongs to one domain; two of them cannot be merged. [New] builds one from keys, [Parse] from a document.
//
// Documents are read tolerantly and written strictly. [Parse] ignores the parts that the standard requires a reader to
// ignore, and lists them (see [Ignored]); it refuses a document that is ambiguous or broken, so that two readers of one
// document never trust different keys. [Bundle.Marshal] returns the same bytes for the same content, in whatever order
// the keys came. [ReadMap] and [MarshalMap] do the same for SPIFFE bundle maps.
//
// The content that counts is the set of X.509 and JWT authorities. [Bundle.Digest] and [Bundle.SameKeys] depend on
// nothing else: not on the order, the refresh hint or the sequence. WIT authorities are kept on the way.
//
// [Format] names the forms in which other programs read bundles: the document, PEM, a JWK Set and the map.
//
// [ParseTrustDomain] and [ParseID] parse names by the SPIFFE ID standard, lengths included. [Reason] turns the errors
// of this package and of those below into labels of metrics.
//
// The packages below serve and fetch documents (endpoint), keep the web certificates of an endpoint (webcert), sign and
// check versions (statement), and verify X509-SVIDs (svid). This package depends on none of them: it opens no
// connection and no file.
//
// Start reading at bundle.go and parse.go.
package bundle
