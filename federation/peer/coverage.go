package peer

import (
	"maps"
	"slices"
	"sync"

	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

// coverage tracks which foreign domains are kept up to date by streams, so that they are not polled meanwhile.
type coverage struct {
	streams *Streams

	mu    sync.Mutex
	ended map[string]bool // domains that a stream kept up to date, and does no more
}

// Covers reports whether a peer keeps a domain up to date over a stream to any member of this cluster. The name of a
// hub's map is that of the hub with [relationship.MapSuffix].
func (p *Streams) Covers(home, name string) bool {
	if home == "" {
		return false
	}
	for _, s := range p.of(home) {
		s.mu.Lock()
		_, ok := s.session.Confirmed[name]
		s.mu.Unlock()
		if ok {
			return true
		}
	}
	return p.remote.confirms(home, name)
}

// TakeEnded reports whether a stream that kept a domain up to date has ended since the last call.
func (p *Streams) TakeEnded(td string) bool {
	c := p.coverage
	c.mu.Lock()
	defer c.mu.Unlock()
	ended := c.ended[td]
	delete(c.ended, td)
	return ended
}

// record updates the report to the leader on this member's streams with a peer.
func (c *coverage) record(home string) {
	p := c.streams
	streams := p.of(home)
	now := p.config.Now()
	var before, after []string
	p.reports.update(home, func(n *observation) {
		before = n.confirmed
		defer func() { after = n.confirmed }()
		if len(streams) == 0 {
			if n.connected {
				n.connected, n.confirmed, n.changed = false, nil, now
			}
			return
		}
		newest := streams[len(streams)-1]
		newest.mu.Lock()
		defer newest.mu.Unlock()
		s := newest.session
		n.known, n.connected, n.outgoing, n.remote, n.changed = true, true, s.Outgoing, s.Remote, s.Opened
		n.result, n.err = "", ""
		if s.Greeted && len(s.Wanted) > 0 || len(s.Acknowledged) > 0 {
			n.acknowledged = mergeAcknowledged(n.acknowledged, s.Acknowledged)
		}
		n.confirmed = slices.Sorted(maps.Keys(s.Confirmed))
	})
	if slices.Equal(before, after) {
		return
	}
	c.mu.Lock()
	for _, name := range before {
		if !slices.Contains(after, name) {
			c.ended[relationship.DomainOfKey(name)] = true
		}
	}
	c.mu.Unlock()
	var names []string
	for _, name := range slices.Concat(before, after) {
		names = append(names, relationship.DomainOfKey(name)) // a hub's map belongs to the hub's domain
	}
	p.config.Changed(names)
}

// mergeAcknowledged returns what a peer has acknowledged on its stream. A higher sequence that it acknowledged before
// remains.
func mergeAcknowledged(before, is map[string]session.Acknowledgement) map[string]session.Acknowledgement {
	merged := maps.Clone(is)
	for td, was := range before {
		if a, ok := merged[td]; ok && was.Sequence > a.Sequence {
			merged[td] = session.Acknowledgement{Sequence: was.Sequence, Refusal: a.Refusal, Time: was.Time}
		}
	}
	return merged
}
