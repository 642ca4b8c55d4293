package plan

import (
	"cmp"
	"fmt"
	"slices"
)

// Plan is the result for callers in one locality: all endpoints that they can authenticate, in priorities, with the
// load of each. Unavailable endpoints are included, because their number matters. xDS sends them, a hint leaves them
// out.
type Plan struct {
	// Priorities are without gaps, the best first. No locality occurs twice in one, and no address twice in all of
	// them.
	Priorities []Priority
	// Excluded are the endpoints that are not offered, in order of address. It may be shared and must not be changed.
	Excluded []Exclusion
	// Reason is why no endpoint gets load, or "".
	Reason string

	arrangement *Arrangement
}

// SameAs reports whether two plans for callers in the same locality were made from one state of the service, and so are
// equal. Plans of different states may be equal too.
func (p Plan) SameAs(o Plan) bool { return p.arrangement != nil && p.arrangement == o.arrangement }

// Priority is a set of endpoints that are equally good for the caller.
type Priority struct {
	// Load and DegradedLoad are percentages of all requests, for the healthy and for the degraded endpoints. Over all
	// priorities they add up to 100, or to 0 if Plan.Reason is set.
	Load, DegradedLoad uint32
	// Panic means that so few endpoints are available that the load goes to all of them, whatever their health.
	Panic bool
	// Localities are in order of their names.
	Localities []LocalityShare
}

// LocalityShare is the share of one locality in its priority.
type LocalityShare struct {
	Locality Locality
	// Weight is the weight of the locality before its health is taken into account. It is between 1 and 2³².
	Weight uint64
	// Share and DegradedShare are percentages of the Load and DegradedLoad of the priority. Part and DegradedPart are
	// the same in parts of WholePart, for further division; a locality with any share has at least one part.
	Share, DegradedShare uint32
	Part, DegradedPart   uint64
	// Endpoints are in order of address. They are shared by all plans of one state of the service and must not be
	// changed.
	Endpoints []Endpoint

	group *endpointGroup
}

// Plan returns the plan for callers in a locality. It is a pure function: the same endpoints in any order give the same
// plan.
func (p *Policy) Plan(caller Locality, endpoints []Endpoint) Plan {
	return p.Arrange(endpoints).Plan(caller)
}

// Plan returns the plan for callers in a locality.
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
		plan.Reason = noLoadReason(a.all, a.admitted, len(plan.Excluded))
	}
	return plan
}

// CompareEndpoints orders endpoints by address, and those that share an address by which of them counts: registered
// endpoints precede imported ones, so that no other cluster can displace them.
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

// noLoadReason returns why no endpoint gets load.
func noLoadReason(all, trusted, excluded int) string {
	switch {
	case all == 0:
		return "no instance is registered"
	case trusted == 0:
		return fmt.Sprintf(
			"none of %d instances can be authenticated from here; see the excluded instances for the reasons",
			all,
		)
	case excluded == all:
		return fmt.Sprintf("all %d instances are excluded; each has its reason", all)
	}
	return fmt.Sprintf("none of %d instances is available, and panic is turned off", trusted)
}

// shares splits the load of a priority among its localities: the healthy load by healthy endpoints, the degraded load
// by degraded ones, and in a panic both by the weight of all endpoints.
func (p *Policy) shares(groups []weightedGroup, l load) []LocalityShare {
	healthy, degraded := make([]uint64, len(groups)), make([]uint64, len(groups))
	for i, g := range groups {
		if l.panic {
			// Envoy then balances over one list of all hosts, regardless of localities.
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

// rescue replaces weights that have all been rounded down to 0 although there is load to split. The localities then
// share the load by the weights of their endpoints of the wanted health, as in Envoy without a locality schedule.
func rescue(weights []uint64, load uint64, groups []weightedGroup, wanted func(*endpointGroup) uint64) []uint64 {
	if load == 0 || slices.ContainsFunc(weights, func(w uint64) bool { return w > 0 }) {
		return weights
	}
	for i, g := range groups {
		weights[i] = wanted(g.endpointGroup)
	}
	return weights
}

// Offered reports whether an endpoint of the priority gets its load, or would if there were load.
func (p Priority) Offered(e Endpoint) bool { return p.Panic || e.Health.Available() }
