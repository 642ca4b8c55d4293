package plan

import (
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// hintMessages are what hints say of the endpoints of a cohort. All hints share them; nobody changes them.
type hintMessages struct {
	locality *ententev1.Locality
	// all are what is offered in a panic, available what is offered otherwise, and unavailable says why the others are
	// not.
	all, available []*ententev1.HintEndpoint
	unavailable    []*ententev1.HintExclusion
}

// hintMessages returns the messages of a cohort, which are made once.
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

// Hint returns the message of the API for a plan: what may be called, in order, and what not, and why. Most of it is
// shared by the hints of all callers; nobody changes it.
func (plan Plan) Hint(service string, caller Locality, revision uint64) *ententev1.Hint {
	h := &ententev1.Hint{Service: service, Locality: caller.Proto(), Revision: revision, Reason: plan.Reason}
	refused := plan.refusals()
	out := 0
	for _, p := range plan.Priorities {
		for _, l := range p.Localities {
			if !p.Panic {
				out += len(l.group.hintMessages().unavailable)
			}
		}
	}
	if out == 0 {
		h.Excluded = refused
	} else {
		h.Excluded = make([]*ententev1.HintExclusion, 0, out+len(refused))
	}
	for i, p := range plan.Priorities {
		priority := &ententev1.HintPriority{
			Priority:     uint32(i),
			Load:         p.Load,
			DegradedLoad: p.DegradedLoad,
			Panic:        p.Panic,
		}
		for _, l := range p.Localities {
			said := l.group.hintMessages()
			offered := said.available
			if p.Panic {
				offered = said.all
			} else {
				h.Excluded = append(h.Excluded, said.unavailable...)
			}
			if len(offered) > 0 {
				priority.Localities = append(priority.Localities, &ententev1.HintLocality{
					Locality: said.locality, Share: l.Share, DegradedShare: l.DegradedShare, Endpoints: offered,
				})
			}
		}
		h.Priorities = append(h.Priorities, priority)
	}
	if out > 0 {
		h.Excluded = append(h.Excluded, refused...)
	}
	return h
}

// refusals returns the messages of what a plan excludes. Those of what is offered to nobody are made once.
func (p Plan) refusals() []*ententev1.HintExclusion {
	a := p.arrangement
	if len(p.Excluded) > len(a.excluded) { // a distribution rule leaves out more
		return exclusions(p.Excluded)
	}
	a.once.Do(func() { a.refused = exclusions(a.excluded) })
	return a.refused
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
