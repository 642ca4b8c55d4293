// Package trust decides which trust domains this cluster trusts, and with which bundle.
//
// A [State] is what a domain is worth at the moment; a [Status] has one for each kind of SVID. [Parse] turns a stored row
// into a bundle, and is the only reader of stored bundles: it parses a document once for all who need it.
package trust
