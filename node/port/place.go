package port

import (
	"container/list"
	"net"
	"sync"
	"time"

	"github.com/ententehq/entente/internal/origin"
)

// stalledFor is the age at which a handshake that has begun can be replaced by a new one. A handshake takes a few round
// trips.
const stalledFor = time.Second

// places are the handshakes under way, which callers can hold without being known. They are limited in all and for each
// source. At a limit, a new handshake replaces the oldest one that has not sent a hello, or else the oldest one that
// stalls, of the source that is at its limit. So idle connections lock nobody out.
//
// Hosts from which a member was verified have further places of their own. It is safe for concurrent use.
type places struct {
	most, perHost, perSite, forMembers int
	now                                func() time.Time

	mu      sync.Mutex
	taken   list.List // of *place, the oldest first, those for members excepted
	sources origin.Counts
	// members are the last hosts of the members. reserved is how many places their handshakes take.
	members  map[string]string
	reserved int
}

// place is that of one handshake.
type place struct {
	of      *places
	conn    net.Conn
	from    origin.Origin
	since   time.Time
	element *list.Element // nil for a place of a member's host
	greeted bool          // the hello was received
	gone    bool
	evicted bool
}

func newPlaces(most, perHost int, now func() time.Time) *places {
	return &places{
		most: most, perHost: perHost, perSite: 2 * perHost, forMembers: reservedHandshakes, now: now,
		sources: make(origin.Counts), members: make(map[string]string),
	}
}

// enter takes a place for a handshake. It closes the connection of the handshake that gives way, if there is one. It
// returns a [Refusal] if none can.
func (s *places) enter(conn net.Conn) (*place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &place{of: s, conn: conn, from: origin.Of(conn.RemoteAddr()), since: s.now()}
	if s.reserved < s.forMembers && s.ofMember(p.from.Host) {
		s.reserved++
		return p, nil
	}
	for _, limit := range []struct {
		most int
		of   string
		name string
	}{{s.perHost, p.from.Host, p.from.Host}, {s.perSite, p.from.Site, p.from.Site}, {s.most, "", "any source"}} {
		taken := s.taken.Len()
		if limit.of != "" {
			taken = s.sources[limit.of]
		} else if limit.name == "" {
			continue // an IPv4 address has no site
		}
		if taken < limit.most {
			continue
		}
		victim := s.victim(limit.of)
		if victim == nil {
			return nil, refuse(ReasonBusy, "%d handshakes with %s are under way, as many as this port allows, and "+
				"none of them stalls", limit.most, limit.name)
		}
		victim.evicted = true
		victim.free()
		_ = victim.conn.Close() // its handshake fails, and is counted there
	}
	p.element = s.taken.PushBack(p)
	s.sources.Add(p.from, 1)
	return p, nil
}

// victim returns the handshake of a source that gives way, or nil. Without a source it is one of any. s.mu is held.
func (s *places) victim(from string) *place {
	var stalled *place
	for e := s.taken.Front(); e != nil; e = e.Next() {
		p := e.Value.(*place) //nolint:forcetypeassert // the list has no others
		switch {
		case from != "" && p.from.Host != from && p.from.Site != from:
		case !p.greeted:
			return p
		case stalled == nil && s.now().Sub(p.since) >= stalledFor:
			stalled = p
		}
	}
	return stalled
}

// ofMember reports whether a member was last verified from a host. s.mu is held.
func (s *places) ofMember(host string) bool {
	for _, known := range s.members {
		if known == host {
			return true
		}
	}
	return false
}

// learn keeps the host from which a member was verified.
func (s *places) learn(memberID string, remote net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[memberID] = origin.Of(remote).Host
}

// forget deletes the hosts of members that are not known any more.
func (s *places) forget(known func(memberID string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.members {
		if !known(id) {
			delete(s.members, id)
		}
	}
}

// greet records that the hello was received.
func (p *place) greet() {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.greeted = true
}

// leave gives the place back, and reports whether the handshake had to give way. It may be called more than once.
func (p *place) leave() (evicted bool) {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.free()
	return p.evicted
}

// free gives the place back. The mu of the places is held.
func (p *place) free() {
	switch {
	case p.gone:
	case p.element == nil:
		p.of.reserved--
	default:
		p.of.taken.Remove(p.element)
		p.of.sources.Add(p.from, -1)
	}
	p.gone = true
}
