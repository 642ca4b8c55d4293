package port

import (
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/internal/origin"
)

// Privilege is what is known of a caller under h2 before it calls anything.
type Privilege uint8

const (
	// Stranger is a caller without a grant, of any trust domain. It may call nothing.
	Stranger Privilege = iota
	// Peer is a member of another cluster.
	Peer
	// Granted is a caller with a grant.
	Granted
)

// class is a kind of incoming connections with limits of its own, so none takes the places of another.
type class uint8

const (
	ofMember class = iota
	ofGranted
	ofPeer
	ofStranger
	ofJoiner
)

func (c class) String() string {
	return [...]string{
		"members", "callers with a grant", "members of other clusters", "callers without a grant", "joiners",
	}[c]
}

// bounds are the limits of the connections of a class: in all, by trust domain, by caller, by host and by IPv6 site. 0
// means none.
type bounds struct {
	all, domain, caller, host, site int
	// replaces is set if a new connection replaces the oldest one at a limit, once that is older than spared.
	replaces bool
	spared   time.Duration
}

// The connections of callers that were not verified, or that may call nothing. A connection costs some 80 KiB with its
// TLS state and its buffers, and what a joiner sends is limited by maxJoinMessage.
const (
	maxStrangers          = 256
	maxStrangersPerDomain = maxStrangers / 4
	maxStrangersPerCaller = maxStrangers / 16

	// Joiners are unauthenticated, so their connections are few and short. A join takes a second.
	maxJoiners   = 32
	joinLifetime = time.Minute
	// One address gets a quarter of them, so it cannot exclude other joiners and clusters.
	maxJoinersPerAddress = maxJoiners / 4
	joinerSpared         = 5 * time.Second

	// One member of a cluster holds a stream to this one, and others for a while when it moves.
	maxPerPeer = 16

	// Raft keeps three connections to a member, and gRPC one.
	maxPerMember = 64

	// barredFor is how long a caller without a grant is not admitted again after its calls were refused repeatedly.
	barredFor = 10 * time.Second
	maxBarred = 1024
)

func boundsOf(maxClients, maxPerCaller int) map[class]bounds {
	half := max(1, maxClients/2)
	return map[class]bounds{
		ofMember: {caller: maxPerMember, replaces: true},
		ofGranted: {
			all: maxClients, domain: half, caller: maxPerCaller, host: half, site: half,
		},
		ofPeer: {all: maxClients, domain: maxPerPeer, host: half, site: half},
		ofStranger: {
			all: maxStrangers, domain: maxStrangersPerDomain, caller: maxStrangersPerCaller,
			host: maxStrangersPerDomain, site: maxStrangersPerDomain, replaces: true,
		},
		ofJoiner: {
			all: maxJoiners, host: maxJoinersPerAddress, site: maxJoinersPerAddress,
			replaces: true, spared: joinerSpared,
		},
	}
}

// group is a set of incoming connections that a limit applies to. Exactly one of the fields after class is set, or
// none for all connections of the class.
type group struct {
	class                      class
	domain, caller, host, site string
}

func (g group) String() string {
	for _, name := range []string{g.domain, g.caller, g.host, g.site} {
		if name != "" {
			return name
		}
	}
	return "all " + g.class.String()
}

// connectionLimiter limits the incoming connections of each class. The owner serializes calls.
type connectionLimiter struct {
	bounds map[class]bounds
	now    func() time.Time
	counts map[group]int
	// order holds the connections of the classes in which new ones replace old ones, the oldest first.
	order  map[class][]*Conn
	barred map[spiffeid.ID]time.Time // until when
}

func newConnectionLimiter(maxClients, maxPerCaller int, now func() time.Time) *connectionLimiter {
	return &connectionLimiter{
		bounds: boundsOf(maxClients, maxPerCaller), now: now, counts: make(map[group]int),
		order: make(map[class][]*Conn), barred: make(map[spiffeid.ID]time.Time),
	}
}

// limited is one limit that applies to a connection.
type limited struct {
	group group
	most  int
}

// limits returns the limits of a connection, those of the smallest groups first.
func (l *connectionLimiter) limits(c *Conn) []limited {
	b, from := l.bounds[c.class], origin.Of(c.caller.Remote)
	caller, domain := c.caller.MemberID+string(c.caller.Protocol), ""
	switch c.caller.Protocol {
	case GRPC:
		caller, domain = c.caller.SPIFFEID.String(), c.caller.SPIFFEID.TrustDomain().Name()
	case Starting:
		caller = "" // not known
	case Raft, Member, Join:
	}
	all := []limited{
		{group{class: c.class, caller: caller}, b.caller},
		{group{class: c.class, host: from.Host}, b.host},
		{group{class: c.class, site: from.Site}, b.site},
		{group{class: c.class, domain: domain}, b.domain},
		{group{class: c.class}, b.all},
	}
	applying := all[:0]
	for i, a := range all {
		if a.most > 0 && (i == len(all)-1 || a.group != group{class: c.class}) {
			applying = append(applying, a)
		}
	}
	return applying
}

// add counts a connection, and returns the connections that it replaces, which do not count any more. It returns a
// [Refusal] if a limit is reached and nothing can be replaced.
func (l *connectionLimiter) add(c *Conn) (replaced []*Conn, err error) {
	if err := l.checkBarred(c); err != nil {
		return nil, err
	}
	limits := l.limits(c)
	for _, of := range limits {
		n := l.counts[of.group]
		for _, r := range replaced {
			if l.within(r, of.group) {
				n--
			}
		}
		if n < of.most {
			continue
		}
		old := l.oldest(of.group)
		if old == nil {
			return nil, refuse(ReasonTooMany, "%s has %d connections to this member, as many as it may have; use "+
				"another member, or close some", of.group, of.most)
		}
		replaced = append(replaced, old)
	}
	for _, r := range replaced {
		l.remove(r)
	}
	for _, of := range limits {
		l.counts[of.group]++
	}
	c.counted = true
	if l.bounds[c.class].replaces {
		c.since = l.now()
		l.order[c.class] = append(l.order[c.class], c)
	}
	return replaced, nil
}

// within reports whether a connection belongs to a group.
func (l *connectionLimiter) within(c *Conn, g group) bool {
	return slices.ContainsFunc(l.limits(c), func(of limited) bool { return of.group == g })
}

// oldest returns the oldest connection of a group that a new one replaces, or nil.
func (l *connectionLimiter) oldest(g group) *Conn {
	spared := l.bounds[g.class].spared
	for _, c := range l.order[g.class] {
		if l.now().Sub(c.since) < spared {
			return nil // the others are younger
		}
		if l.within(c, g) {
			return c
		}
	}
	return nil
}

// remove reverses add. It may be called more than once.
func (l *connectionLimiter) remove(c *Conn) {
	if !c.counted {
		return
	}
	c.counted = false
	for _, of := range l.limits(c) {
		if l.counts[of.group]--; l.counts[of.group] == 0 {
			delete(l.counts, of.group)
		}
	}
	l.order[c.class] = slices.DeleteFunc(l.order[c.class], func(o *Conn) bool { return o == c })
}

// bar refuses the next connections of a caller without a grant for barredFor.
func (l *connectionLimiter) bar(id spiffeid.ID) {
	now := l.now()
	maps.DeleteFunc(l.barred, func(_ spiffeid.ID, until time.Time) bool { return !now.Before(until) })
	if len(l.barred) < maxBarred {
		l.barred[id] = now.Add(barredFor)
	}
}

func (l *connectionLimiter) checkBarred(c *Conn) error {
	if until, ok := l.barred[c.caller.SPIFFEID]; ok && c.class == ofStranger && l.now().Before(until) {
		return refuse(ReasonBarred, "calls of %s were refused repeatedly; it is admitted again at %s, or at once with "+
			"a grant", c.caller.SPIFFEID, until.UTC().Format(time.RFC3339))
	}
	return nil
}
