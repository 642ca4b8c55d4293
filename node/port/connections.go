package port

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// connections are the open connections of a port.
type connections struct {
	mu     sync.Mutex
	open   map[*Conn]struct{}
	counts map[Protocol]int // incoming ones
	// callers counts the connections of each caller under h2.
	callers map[spiffeid.ID]int
	// joiners counts the connections of each host under entente-join/1.
	joiners map[string]int
	closed  bool
}

// admit takes a connection in, unless its protocol has as many as it may, or the port is closed.
func (p *Port) admit(c *Conn) error {
	s := &p.connections
	protocol, direction := c.caller.Protocol, direction(c.outgoing)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return refuse(ReasonNotServed, "this member is stopping; try another one")
	}
	if !c.outgoing {
		if limit := p.limit(protocol); limit > 0 && s.counts[protocol] >= limit {
			return refuse(ReasonTooMany, fmt.Sprintf("this member has its %d connections under %s; use another member, or close some", limit, protocol))
		}
		if id := c.caller.SPIFFEID; protocol == GRPC && s.callers[id] >= p.maxPerCaller {
			return refuse(ReasonTooMany, fmt.Sprintf("%s has %d connections to this member, as many as one caller may have; use another member, or close some", id, p.maxPerCaller))
		}
		if protocol == Join && s.joiners[hostOf(c.caller.Remote)] >= maxJoinersPerAddress {
			return refuse(ReasonTooMany, fmt.Sprintf("%s has %d connections to this member under %s, as many as one address may have; they end after %s", hostOf(c.caller.Remote), maxJoinersPerAddress, protocol, joinLifetime))
		}
		s.counts[protocol]++
		switch protocol {
		case GRPC:
			s.callers[c.caller.SPIFFEID]++
		case Join:
			s.joiners[hostOf(c.caller.Remote)]++
		}
	}
	s.open[c] = struct{}{}
	p.ledger.open.WithLabelValues(string(protocol), direction).Inc()
	c.release = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
		if !c.outgoing {
			s.counts[protocol]--
		}
		if id := c.caller.SPIFFEID; protocol == GRPC && !c.outgoing {
			if s.callers[id]--; s.callers[id] == 0 {
				delete(s.callers, id)
			}
		}
		if host := hostOf(c.caller.Remote); protocol == Join && !c.outgoing {
			if s.joiners[host]--; s.joiners[host] == 0 {
				delete(s.joiners, host)
			}
		}
		p.ledger.open.WithLabelValues(string(protocol), direction).Dec()
	}
	if end, reason := p.endOf(c); !end.IsZero() {
		c.end = time.AfterFunc(end.Sub(p.now()), func() { p.drop(c, reason, "its time is over") })
	}
	return nil
}

func direction(outgoing bool) string {
	if outgoing {
		return "out"
	}
	return "in"
}

func (p *Port) limit(protocol Protocol) int {
	switch protocol {
	case GRPC:
		return p.maxClients
	case Join:
		return maxJoiners
	}
	return 0 // members: as many as membership admits
}

// endOf returns when a connection must end whatever happens, and why.
func (p *Port) endOf(c *Conn) (time.Time, Reason) {
	if c.caller.Protocol == Join {
		return p.now().Add(joinLifetime), ReasonLifetime
	}
	return c.caller.Expires, ReasonExpiredSVID
}

// Recheck verifies the other end of every open connection again, by the membership and the bundles of now,
// and closes those that fail. Call it after bundles have changed.
func (p *Port) Recheck() {
	p.recheckAll(protocols...)
	p.forgetStrangers()
}

// RecheckMembers is Recheck for the connections of members alone, in and out. Call it after the membership has
// changed; it costs little, however many clients there are.
func (p *Port) RecheckMembers() {
	p.recheckAll(Raft, Member)
	p.forgetStrangers()
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
			return refuse(ReasonUnknownIdentity, fmt.Sprintf("member %s with this identity key is no longer in the cluster", c.caller.MemberID))
		}
		if address, _, ok := p.members.Locate(id); c.outgoing && ok && address != c.dialed {
			return refuse(ReasonMoved, fmt.Sprintf("member %s is at %s now", id, address))
		}
	case GRPC:
		if _, err := p.verifySVID(c.chain); err != nil {
			return err
		}
	}
	return nil
}

func (p *Port) drop(c *Conn, reason Reason, why string) {
	p.ledger.closed.WithLabelValues(string(c.caller.Protocol), string(reason)).Inc()
	p.logger.Info("connection closed", "caller", c.caller.String(), "remote", c.caller.Remote, "protocol", c.caller.Protocol,
		"direction", direction(c.outgoing), "reason", reason, "detail", why)
	c.cut()
}

// closeAll ends every connection and admits no more.
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
