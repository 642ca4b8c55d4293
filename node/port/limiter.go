package port

import "github.com/spiffe/go-spiffe/v2/spiffeid"

// connectionLimiter counts incoming connections, and limits those of clients and joiners. The owner serializes calls.
type connectionLimiter struct {
	maxClients   int
	maxPerCaller int

	counts  map[Protocol]int
	callers map[spiffeid.ID]int // connections of each caller under h2
	joiners map[string]int      // connections of each host under entente-join/1
}

func newConnectionLimiter(maxClients, maxPerCaller int) *connectionLimiter {
	return &connectionLimiter{
		maxClients: maxClients, maxPerCaller: maxPerCaller,
		counts: make(map[Protocol]int), callers: make(map[spiffeid.ID]int), joiners: make(map[string]int),
	}
}

// add counts a connection, or returns a [Refusal] if its protocol, its caller or its host has reached the limit.
func (l *connectionLimiter) add(c Caller) error {
	if limit := l.limit(c.Protocol); limit > 0 && l.counts[c.Protocol] >= limit {
		return refuse(ReasonTooMany, "this member has its %d connections under %s; use another member, or close some",
			limit, c.Protocol)
	}
	switch c.Protocol {
	case GRPC:
		if l.callers[c.SPIFFEID] >= l.maxPerCaller {
			return refuse(ReasonTooMany, "%s has %d connections to this member, as many as one caller may have; "+
				"use another member, or close some", c.SPIFFEID, l.maxPerCaller)
		}
		l.callers[c.SPIFFEID]++
	case Join:
		host := hostOf(c.Remote)
		if l.joiners[host] >= maxJoinersPerAddress {
			return refuse(ReasonTooMany, "%s has %d connections to this member under %s, as many as one address may "+
				"have; they end after %s", host, maxJoinersPerAddress, c.Protocol, joinLifetime)
		}
		l.joiners[host]++
	}
	l.counts[c.Protocol]++
	return nil
}

// remove reverses add.
func (l *connectionLimiter) remove(c Caller) {
	l.counts[c.Protocol]--
	switch c.Protocol {
	case GRPC:
		decrement(l.callers, c.SPIFFEID)
	case Join:
		decrement(l.joiners, hostOf(c.Remote))
	}
}

// decrement deletes the key of a counter that reaches zero.
func decrement[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// limit returns the limit of connections under a protocol. 0 means none: the membership limits members.
func (l *connectionLimiter) limit(protocol Protocol) int {
	switch protocol {
	case GRPC:
		return l.maxClients
	case Join:
		return maxJoiners
	}
	return 0
}
