package hub

import (
	"slices"

	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// Publisher keeps the log of the map that this cluster serves, and sends the map over streams.
type Publisher struct {
	config Config
	log    *mapLog
}

// NewPublisher returns a publisher with an empty map.
func NewPublisher(c Config) *Publisher { return &Publisher{config: c, log: newMapLog()} }

// Serve returns the sender for a new stream.
func (p *Publisher) Serve(budget peer.MapBudget) peer.MapSender {
	return newSender(budget, p.log, p.entry)
}

// SetHosted records the version of a hosted bundle. The zero version removes the domain.
func (p *Publisher) SetHosted(td string, v relationship.Version) { p.log.set(td, v) }

// UpdateAll records the versions of all attested domains.
func (p *Publisher) UpdateAll(view *raftstore.View) {
	names := append(p.config.Mirror.Names(), p.log.names()...)
	slices.Sort(names)
	p.Update(view, slices.Compact(names))
}

// Update records the versions of some attested domains. Hosted ones are left to SetHosted.
func (p *Publisher) Update(view *raftstore.View, names []string) {
	changed := false
	for _, td := range names {
		d, err := p.config.Trust.Decide(view, td)
		if d.Origin == trust.ByHosting {
			continue
		}
		var v relationship.Version // a domain whose rows cannot be read is not attested
		if err == nil && d.Origin == trust.ByRelationship && relationship.Attested(d.Relationship.Value) {
			if e, ok := p.config.Mirror.Get(td); ok {
				v = e.Holding.Version()
			}
		}
		changed = p.log.set(td, v) || changed
	}
	if changed {
		p.config.MapChanged()
	}
}

// entry returns the document of a domain in the map that this cluster serves, or nil if the domain is not in it.
func (p *Publisher) entry(td string) []byte {
	entry, _, err := p.config.Trust.MapEntry(p.config.Store.View(), td)
	if err != nil {
		p.config.Unreadable(err)
	}
	return entry.Document
}
