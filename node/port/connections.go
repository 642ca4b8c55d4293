package port

import (
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ententehq/entente/internal/logthrottle"
)

// connections holds the open connections of a port.
type connections struct {
	mu       sync.Mutex
	open     map[*Conn]struct{}
	incoming *connectionLimiter
	closed   bool
}

// admit adds a connection. An incoming one may replace others, which it closes. It returns a [Refusal] if the port is
// closed, or an incoming connection exceeds a limit.
func (p *Port) admit(c *Conn) error {
	replaced, err := p.enter(c)
	for _, old := range replaced {
		p.drop(old, ReasonGaveWay, "a newer connection took its place")
	}
	return err
}

func (p *Port) enter(c *Conn) (replaced []*Conn, err error) {
	s := &p.connections
	protocol, direction := c.caller.Protocol, direction(c.outgoing)
	if !c.outgoing {
		c.port, c.class = p, p.classOf(c.caller)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, refuse(ReasonNotServed, "this member is stopping; try another one")
	}
	if !c.outgoing {
		if replaced, err = s.incoming.add(c); err != nil {
			return nil, err
		}
	}
	s.open[c] = struct{}{}
	p.telemetry.open.WithLabelValues(string(protocol), direction).Inc()
	c.release = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
		s.incoming.remove(c)
		p.telemetry.open.WithLabelValues(string(protocol), direction).Dec()
	}
	if end, reason := endOf(c, p.now()); !end.IsZero() {
		c.end = time.AfterFunc(end.Sub(p.now()), func() { p.drop(c, reason, "its lifetime has ended") })
	}
	return replaced, nil
}

// classOf returns the class of an incoming connection.
func (p *Port) classOf(c Caller) class {
	switch c.Protocol {
	case Raft, Member:
		return ofMember
	case Join:
		return ofJoiner
	case Starting:
		return ofStranger
	case GRPC:
	}
	switch p.privilege(c.access()) {
	case Granted:
		return ofGranted
	case Peer:
		return ofPeer
	case Stranger:
	}
	return ofStranger
}

// reclassify moves a connection to the class that its caller has now. It returns a [Refusal] if there is no place.
func (p *Port) reclassify(c *Conn) error {
	if c.outgoing || c.caller.Protocol != GRPC {
		return nil
	}
	now := p.classOf(c.caller)
	replaced, err := func() ([]*Conn, error) {
		s := &p.connections
		s.mu.Lock()
		defer s.mu.Unlock()
		if !c.counted || c.class == now {
			return nil, nil
		}
		s.incoming.remove(c)
		c.class = now
		return s.incoming.add(c)
	}()
	for _, old := range replaced {
		p.drop(old, ReasonGaveWay, "a newer connection took its place")
	}
	return err
}

// A caller without a grant may have some calls refused, and then one a second, for instance while it waits for a grant.
const (
	refusedBurst = 32
	refusedRate  = rate.Limit(1)
)

// refused counts a refused call of a connection. It closes the connection of a caller without a grant that calls again
// and again, and refuses the caller's next connections for a while.
func (c *Conn) refused() {
	s := &c.port.connections
	s.mu.Lock()
	if c.refusals == nil {
		c.refusals = rate.NewLimiter(refusedRate, refusedBurst)
	}
	over := c.counted && c.class != ofGranted && !c.refusals.AllowN(c.port.now(), 1)
	if over {
		s.incoming.remove(c)
		s.incoming.bar(c.caller.SPIFFEID)
	}
	s.mu.Unlock()
	if over {
		c.port.drop(c, ReasonRefused, "its calls were refused again and again")
	}
}

func direction(outgoing bool) string {
	if outgoing {
		return "out"
	}
	return "in"
}

// endOf returns the time at which a connection must end in any case, and the reason. The zero time means none.
func endOf(c *Conn, now time.Time) (time.Time, Reason) {
	if c.caller.Protocol == Join || c.caller.Protocol == Starting {
		return now.Add(joinLifetime), ReasonLifetime
	}
	return c.caller.Expires, ReasonExpiredSVID
}

// Recheck verifies the other end of every open connection again, by the current membership and bundles, and closes
// those that fail. It is called after a change of bundles.
func (p *Port) Recheck() {
	p.recheckAll(protocols...)
	p.closeRemovedMembers()
}

// RecheckMembers is Recheck for the connections of members only, in and out. It is called after a change of membership.
// Its cost does not depend on the number of clients.
func (p *Port) RecheckMembers() {
	p.recheckAll(Raft, Member)
	p.closeRemovedMembers()
}

// Reclassify counts every open connection towards the limits of the [Privilege] that its caller has now. It is called
// after a change of grants or of hosted domains.
func (p *Port) Reclassify() {
	for _, c := range p.connections.of(GRPC) {
		if err := p.reclassify(c); err != nil {
			p.drop(c, ReasonOf(err), err.Error())
		}
	}
}

// of returns the open connections under protocols.
func (s *connections) of(protocols ...Protocol) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []*Conn
	for c := range s.open {
		if slices.Contains(protocols, c.caller.Protocol) {
			open = append(open, c)
		}
	}
	return open
}

func (p *Port) recheckAll(of ...Protocol) {
	for _, c := range p.connections.of(of...) {
		if err := p.recheck(c); err != nil {
			p.drop(c, ReasonOf(err), err.Error())
		}
	}
}

func (p *Port) recheck(c *Conn) error {
	switch c.caller.Protocol {
	case Raft, Member:
		id, ok := p.members.MemberByIdentity(c.caller.Identity)
		if !ok || id != c.caller.MemberID {
			return refuse(ReasonUnknownIdentity, "member %s with this identity key is no longer in the cluster",
				c.caller.MemberID)
		}
		if address, _, ok := p.members.Locate(id); c.outgoing && ok && address != c.dialed {
			return refuse(ReasonMoved, "member %s is now at %s", id, address)
		}
	case GRPC:
		if _, err := p.verifySVID(c.chain); err != nil {
			return err
		}
	}
	return nil
}

// drop closes a connection that fails a check.
func (p *Port) drop(c *Conn, reason Reason, detail string) {
	p.telemetry.closed.WithLabelValues(string(c.caller.Protocol), string(reason)).Inc()
	if skipped, ok := p.telemetry.mayLog(reason); ok {
		p.logger.Info("connection closed", "caller", c.caller.String(), "remote", c.caller.Remote,
			"protocol", c.caller.Protocol, "direction", direction(c.outgoing), "reason", reason, "detail", detail,
			logthrottle.Omitted, skipped)
	}
	c.cut()
}

// closeAll closes every connection and admits no more.
func (s *connections) closeAll() {
	s.mu.Lock()
	s.closed = true
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range open {
		c.cut()
	}
}
