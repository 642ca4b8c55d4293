package plan

import (
	"cmp"
	"fmt"
	"slices"
)

// Plan is the answer for one caller: all instances that it could authenticate, in priorities, with the load of each.
// It holds the unavailable ones too, since their number decides; xDS is given them, a hint leaves them out.
type Plan struct {
	// Priorities are without gaps, the best first. No locality stands twice in one, no address twice in all of them.
	Priorities []Priority
	// Excluded holds the instances that are not offered, in order of address. It may be shared; do not change it.
	Excluded []Exclusion
	// Reason says why no instance gets load; empty when one does.
	Reason string

	arrangement *Arrangement
}

// SameAs says that two plans for callers in one place are the same, because both were made from one state of the
// service. Where it says no, they may still be equal.
func (p Plan) SameAs(o Plan) bool { return p.arrangement != nil && p.arrangement == o.arrangement }

// Priority is a set of endpoints that are equally good for the caller.
type Priority struct {
	// Load and DegradedLoad are percentages of all requests, to the healthy and to the degraded endpoints. Over all
	// priorities they add up to 100, or to 0 if Plan.Reason is set.
	Load, DegradedLoad uint32
	// Panic: so few endpoints are available that the load goes to all of them, whatever their health.
	Panic bool
	// Localities are in order of their names.
	Localities []LocalityShare
}

// LocalityShare is the part of one locality in its priority.
type LocalityShare struct {
	Locality Locality
	// Weight is the locality's, before health is taken into account; between 1 and 2³².
	Weight uint64
	// Share and DegradedShare are percentages of the priority's Load and DegradedLoad. Part and DegradedPart are the
	// same in parts of WholePart, for those who divide them further; a locality that has any of it has one at least.
	Share, DegradedShare uint32
	Part, DegradedPart   uint64
	// Endpoints are in order of address. They are shared by the plans of one state of the service; do not change them.
	Endpoints []Endpoint

	group *endpointGroup
}

// Plan decides who gets what of the requests of a caller. It is a pure function: the same endpoints, in whatever order,
// give the same plan.
func (p *Policy) Plan(caller Locality, endpoints []Endpoint) Plan {
	return p.Arrange(endpoints).Plan(caller)
}

// Plan decides who gets what of the requests of a caller.
func (a *Arrangement) Plan(caller Locality) Plan {
	p := a.policy
	plan := Plan{Excluded: a.excluded, arrangement: a}
	var groups [][]weightedGroup
	if rule, ruled := p.distributionFor(caller); ruled {
		var out []Exclusion
		if groups, out = a.distribute(rule, caller); len(out) > 0 {
			plan.Excluded = slices.Concat(a.excluded, out)
			slices.SortStableFunc(
				plan.Excluded,
				func(a, b Exclusion) int { return a.Endpoint.Address.Compare(b.Endpoint.Address) },
			)
		}
	} else {
		groups = a.prioritize(caller)
	}
	tallies := make([]tally, len(groups))
	for i, localities := range groups {
		for _, g := range localities {
			tallies[i] = tallies[i].plus(g.tally)
		}
	}
	plan.Priorities = make([]Priority, len(groups))
	loaded := false
	for i, l := range p.loads(tallies) {
		plan.Priorities[i] = Priority{
			Load:         uint32(l.healthy),
			DegradedLoad: uint32(l.degraded),
			Panic:        l.panic,
			Localities:   p.shares(groups[i], l),
		}
		loaded = loaded || l.healthy+l.degraded > 0
	}
	if !loaded {
		plan.Reason = whyNobody(a.all, a.admitted, len(plan.Excluded))
	}
	return plan
}

// CompareEndpoints is the order of endpoints in a plan: by address, and where several claim one, those that are
// registered here before those that were imported, so that no other cluster can push them aside; then by origin, what
// counts before what is outranked, and by ID.
func CompareEndpoints(a, b Endpoint) int {
	if c := a.Address.Compare(b.Address); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Origin, b.Origin); c != 0 {
		return c
	}
	if c := compareBool(a.Outranked, b.Outranked); c != 0 {
		return c
	}
	return cmp.Compare(a.ID.String(), b.ID.String())
}

func whyNobody(all, trusted, excluded int) string {
	switch {
	case all == 0:
		return "no instance is registered"
	case trusted == 0:
		return fmt.Sprintf("none of %d instances can be authenticated from here; see what is excluded", all)
	case excluded == all:
		return fmt.Sprintf("all %d instances are excluded; see why", all)
	}
	return fmt.Sprintf("none of %d instances is available, and panic is turned off", trusted)
}

// shares splits the load of a priority among its localities: the healthy load by healthy endpoints, the degraded load
// by degraded ones, and in a panic either by the weight of all endpoints.
func (p *Policy) shares(groups []weightedGroup, l load) []LocalityShare {
	healthy, degraded := make([]uint64, len(groups)), make([]uint64, len(groups))
	for i, g := range groups {
		if l.panic {
			// Envoy balances over one list of all hosts then, without regard to localities.
			healthy[i], degraded[i] = g.endpointGroup.weight, g.endpointGroup.weight
			continue
		}
		healthy[i] = effective(p.factor, g.weight, g.healthy, g.total)
		degraded[i] = effective(p.factor, g.weight, g.degraded, g.total)
	}
	healthy = rescue(healthy, l.healthy, groups, func(c *endpointGroup) uint64 { return c.healthyWeight })
	degraded = rescue(degraded, l.degraded, groups, func(c *endpointGroup) uint64 { return c.degradedWeight })
	healthyParts, degradedParts := parts(healthy), parts(degraded)
	healthy, degraded = percentages(healthy), percentages(degraded)
	out := make([]LocalityShare, len(groups))
	for i, g := range groups {
		out[i] = LocalityShare{
			Locality: g.locality, Weight: g.weight, Endpoints: g.endpoints,
			Share: uint32(healthy[i]), DegradedShare: uint32(degraded[i]),
			Part: healthyParts[i], DegradedPart: degradedParts[i], group: g.endpointGroup,
		}
	}
	return out
}

// rescue replaces weights that all rounded down to nothing although there is load to split: then the localities share
// it by the weights of their endpoints of the wanted health, which is what Envoy does without a locality schedule.
func rescue(weights []uint64, load uint64, groups []weightedGroup, wanted func(*endpointGroup) uint64) []uint64 {
	if load == 0 || slices.ContainsFunc(weights, func(w uint64) bool { return w > 0 }) {
		return weights
	}
	for i, g := range groups {
		weights[i] = wanted(g.endpointGroup)
	}
	return weights
}

// Offered says whether an endpoint of the priority is among those that get its load, or would if load came.
func (p Priority) Offered(e Endpoint) bool { return p.Panic || e.Health.Available() }
