// Package trust decides which trust domains this cluster trusts, and with which bundle.
//
// Three things can make a domain trusted: this cluster hosts it, or has a relationship with it, or a hub attests to it.
// They count in that order; [Sources.Decide] has the rule, and no other package repeats it. The tables and the rules on
// one relationship belong to the rooms above, which supply them as [Hosted] and [Foreign].
//
// Package standing has the states of a domain. [Parse] turns a stored row into a bundle, and is the only reader of
// stored bundles: it parses a document once for all who need it.
//
// An [Index] serves one member: it makes the parsed bundle, its API message, its entry in a bundle map and the list
// of its statements once a revision, and shares them. It never holds more than a bounded number of parsed bundles. The
// packages below serve its content: bundleapi over gRPC, publisher at the bundle endpoint.
//
// Nothing here writes to the store. Start reading at sources.go.
package trust
