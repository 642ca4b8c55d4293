package plan

import (
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// hintMessages are the parts of hints for one endpointGroup. They are shared by all hints and must not be changed.
type hintMessages struct {
	locality *ententev1.Locality
	// all are the endpoints that are offered in a panic, available those that are offered otherwise. unavailable has
	// the reasons for the others.
	all, available []*ententev1.HintEndpoint
	unavailable    []*ententev1.HintExclusion
}

// hintMessages returns the messages of a group, which are made once.
func (c *endpointGroup) hintMessages() *hintMessages {
	c.once.Do(func() {
		m := &c.messages
		m.locality = c.locality.Proto()
		m.all, m.available = make(
			[]*ententev1.HintEndpoint,
			len(c.endpoints),
		), make(
			[]*ententev1.HintEndpoint,
			0,
			c.healthy+c.degraded,
		)
		room := make([]ententev1.HintEndpoint, len(c.endpoints)) // one allocation for all
		for i, e := range c.endpoints {
			at := &room[i]
			at.Address, at.SpiffeId, at.Health = e.Address.String(), e.ID.String(), ententev1.Health(e.Health)
			at.Weight, at.Freshness, at.Origin = e.Weight, e.Trust.Freshness(), e.Origin
			at.Kept = e.Kept
			m.all[i] = at
			if e.Health.Available() {
				m.available = append(m.available, m.all[i])
			} else {
				m.unavailable = append(m.unavailable, exclusion(e, m.locality, e.why()))
			}
		}
	})
	return &c.messages
}

// Hint returns the API message of a plan: the endpoints that may be called, in order, and the excluded ones with the
// reasons. Parts of it are shared by the hints of all callers and must not be changed.
func (p Plan) Hint(service string, caller Locality, revision uint64) *ententev1.Hint {
	h := &ententev1.Hint{Service: service, Locality: caller.Proto(), Revision: revision, Reason: p.Reason}
	excluded := p.exclusions()
	unavailable := 0
	for _, priority := range p.Priorities {
		for _, l := range priority.Localities {
			if !priority.Panic {
				unavailable += len(l.group.hintMessages().unavailable)
			}
		}
	}
	if unavailable == 0 {
		h.Excluded = excluded
	} else {
		h.Excluded = make([]*ententev1.HintExclusion, 0, unavailable+len(excluded))
	}
	for i, priority := range p.Priorities {
		m := &ententev1.HintPriority{
			Priority: uint32(i), Load: priority.Load, DegradedLoad: priority.DegradedLoad, Panic: priority.Panic,
		}
		for _, l := range priority.Localities {
			messages := l.group.hintMessages()
			offered := messages.available
			if priority.Panic {
				offered = messages.all
			} else {
				h.Excluded = append(h.Excluded, messages.unavailable...)
			}
			if len(offered) > 0 {
				m.Localities = append(m.Localities, &ententev1.HintLocality{
					Locality: messages.locality, Share: l.Share, DegradedShare: l.DegradedShare, Endpoints: offered,
				})
			}
		}
		h.Priorities = append(h.Priorities, m)
	}
	if unavailable > 0 {
		h.Excluded = append(h.Excluded, excluded...)
	}
	return h
}

// exclusions returns the messages of the excluded endpoints. Those that all plans of an arrangement have in common are
// made once.
func (p Plan) exclusions() []*ententev1.HintExclusion {
	a := p.arrangement
	if len(p.Excluded) > len(a.excluded) { // a distribution rule leaves out more
		return exclusions(p.Excluded)
	}
	a.once.Do(func() { a.messages = exclusions(a.excluded) })
	return a.messages
}

func exclusions(list []Exclusion) []*ententev1.HintExclusion {
	places := make(map[Locality]*ententev1.Locality)
	out := make([]*ententev1.HintExclusion, len(list))
	for i, x := range list {
		place := places[x.Endpoint.Locality]
		if place == nil {
			place = x.Endpoint.Locality.Proto()
			places[x.Endpoint.Locality] = place
		}
		out[i] = exclusion(x.Endpoint, place, x.Reason)
	}
	return out
}

func exclusion(e Endpoint, place *ententev1.Locality, reason string) *ententev1.HintExclusion {
	return &ententev1.HintExclusion{
		Address: e.Address.String(), SpiffeId: e.ID.String(), Reason: reason, Origin: e.Origin, Locality: place,
	}
}
