// Package relationship holds the rules and the rows of federation: what a relationship with a foreign trust domain is,
// which bundles it accepts, and how far they can be relied on.
//
// A [Relationship] is a parsed row: [Parse] returns one or names the field that is wrong. [Accept] decides whether a
// bundle may replace the stored one. [Judge] decides whether a stored bundle is fresh, stale or expired. [Interval] and
// [Turn] decide when it is fetched next. [Attested] decides what this cluster attests as a hub, and [TrustSource] what
// counts of other hubs.
//
// The tables are [Relationships], [ForeignBundles], [ForeignHistory] and [HubBundles]. Functions that take a
// [raftstore.Tx] are parts of transactions. Nothing here has a clock, a goroutine or a connection.
package relationship
