// Package peer keeps the streams between this cluster and the clusters that its relationships name as peers.
//
// A stream carries the bundles of hosted trust domains in both directions, with their signed statements, the changes of
// a hub's bundle map, and the messages of a [Payload] such as service sync. While a stream confirms that a stored
// bundle is current, the bundle endpoint is not polled at the pace of its refresh hint; when the stream ends, polling
// resumes.
//
// [Streams] decides which streams there are. The relationships say which peers may have one, and at which addresses
// they are dialled; one member of the cluster, the owner of the peer, dials. Streams are accepted by [Service]. Each
// one runs a [session.Session], which is the protocol without network and clock: read it first. What a peer sends
// beyond the protocol is passed to a [Receiver] (bundles, statements) or to a [Hub] (maps); both are implemented above
// this package.
//
// A peer is not trusted. Its identity is its verified X509-SVID, whatever its messages contain. Its [Budget] limits
// what it may send and what may be kept in memory for it, over all its streams and however often it reconnects, and a
// stream ends with a named reason ([session.Error]) when a limit is exceeded.
//
// Nothing of the streams is replicated. Each member reports its own to the leader with its heartbeats ([Reports]), and
// every member polls the leader for those of the others.
package peer
