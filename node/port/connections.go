package port

import (
	"slices"
	"sync"
	"time"
)

// connections holds the open connections of a port.
type connections struct {
	mu       sync.Mutex
	open     map[*Conn]struct{}
	incoming *connectionLimiter
	closed   bool
}

// admit adds a connection. It returns a [Refusal] if the port is closed, or an incoming connection exceeds a limit.
func (p *Port) admit(c *Conn) error {
	s := &p.connections
	protocol, direction := c.caller.Protocol, direction(c.outgoing)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return refuse(ReasonNotServed, "this member is stopping; try another one")
	}
	if !c.outgoing {
		if err := s.incoming.add(c.caller); err != nil {
			return err
		}
	}
	s.open[c] = struct{}{}
	p.telemetry.open.WithLabelValues(string(protocol), direction).Inc()
	c.release = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
		if !c.outgoing {
			s.incoming.remove(c.caller)
		}
		p.telemetry.open.WithLabelValues(string(protocol), direction).Dec()
	}
	if end, reason := p.endOf(c); !end.IsZero() {
		c.end = time.AfterFunc(end.Sub(p.now()), func() { p.drop(c, reason, "its lifetime has ended") })
	}
	return nil
}

func direction(outgoing bool) string {
	if outgoing {
		return "out"
	}
	return "in"
}

// endOf returns the time at which a connection must end in any case, and the reason. The zero time means none.
func (p *Port) endOf(c *Conn) (time.Time, Reason) {
	if c.caller.Protocol == Join {
		return p.now().Add(joinLifetime), ReasonLifetime
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

func (p *Port) recheckAll(of ...Protocol) {
	p.connections.mu.Lock()
	var open []*Conn
	for c := range p.connections.open {
		if slices.Contains(of, c.caller.Protocol) {
			open = append(open, c)
		}
	}
	p.connections.mu.Unlock()
	for _, c := range open {
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
	p.logger.Info("connection closed", "caller", c.caller.String(), "remote", c.caller.Remote,
		"protocol", c.caller.Protocol, "direction", direction(c.outgoing), "reason", reason, "detail", detail)
	c.cut()
}

// closeAll closes every connection and admits no more.
func (p *Port) closeAll() {
	p.connections.mu.Lock()
	p.connections.closed = true
	var open []*Conn
	for c := range p.connections.open {
		open = append(open, c)
	}
	p.connections.mu.Unlock()
	for _, c := range open {
		c.cut()
	}
}
