package xds

import (
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/routing/plan"
)

// level is one priority as it is sent.
type level []place

// place is a locality in a level, with the endpoints that are called there.
type place struct {
	locality  plan.Locality
	weight    uint64
	endpoints []weighted
}

type weighted struct {
	plan.Endpoint
	weight uint64
}

// wholeLoad is the load of all requests, in the unit of a locality's part of a priority's percentage.
const wholeLoad = 100 * plan.WholePart

// fine is the weight of one part of load, which can be split among endpoints. The weight of all load is below 2³².
const fine = 1 << 11

// spill computes what Envoy computes itself, for clients that use the next priority only when one is empty. All
// localities with load become the first level, each weighted by its share. Endpoints that could get load follow in
// order of priority, degraded ones after all healthy ones, as in the computation of load. No other endpoints are sent,
// because these clients would call them.
//
// of selects the endpoints that are sent; if nil, all are. The load of those that are not sent is shared by the others.
func spill(planned plan.Plan, of func(plan.Endpoint) bool) []level {
	var first level
	var rest, last []level
	index := map[plan.Locality]int{}
	for _, p := range planned.Priorities {
		var later, latest level
		for _, l := range p.Localities {
			loaded, idle := split(p, l)
			loaded, idle = picked(loaded, of), picked(idle, of)
			if len(loaded) > 0 {
				i, known := index[l.Locality]
				if !known {
					i = len(first)
					index[l.Locality] = i
					first = append(first, place{locality: l.Locality})
				}
				first[i].endpoints = append(first[i].endpoints, loaded...)
				first[i].weight += total(loaded)
			}
			later = later.with(
				l,
				picked(idle, func(e plan.Endpoint) bool { return p.Panic || e.Health == plan.Healthy }),
			)
			latest = latest.with(
				l,
				picked(idle, func(e plan.Endpoint) bool { return !p.Panic && e.Health != plan.Healthy }),
			)
		}
		rest, last = append(rest, later), append(last, latest)
	}
	return slices.DeleteFunc(slices.Concat([]level{first}, rest, last), func(l level) bool { return len(l) == 0 })
}

// with adds the idle endpoints of a locality, if there are any.
func (l level) with(of plan.LocalityShare, idle []weighted) level {
	if len(idle) == 0 {
		return l
	}
	return append(l, place{locality: of.Locality, weight: max(1, of.Weight), endpoints: idle})
}

// split divides the endpoints of a locality into those with load and those that could get load. The weight of an
// endpoint with load is its share of all requests, in units of 1/(wholeLoad × fine).
func split(p plan.Priority, l plan.LocalityShare) (loaded, idle []weighted) {
	healthy := part(uint64(p.Load)*l.Part, l.Endpoints, func(e plan.Endpoint) bool {
		return p.Panic || e.Health == plan.Healthy
	})
	degraded := part(uint64(p.DegradedLoad)*l.DegradedPart, l.Endpoints, func(e plan.Endpoint) bool {
		return p.Panic || e.Health == plan.Degraded
	})
	for i, e := range l.Endpoints {
		switch w := healthy[i] + degraded[i]; {
		case w > 0:
			loaded = append(loaded, weighted{e, w})
		case p.Offered(e):
			idle = append(idle, weighted{e, uint64(max(1, e.Weight))})
		}
	}
	return loaded, idle
}

// part splits load among the endpoints for which takes returns true, by their weights.
func part(load uint64, endpoints []plan.Endpoint, takes func(plan.Endpoint) bool) []uint64 {
	out := make([]uint64, len(endpoints))
	sum := uint64(0)
	for _, e := range endpoints {
		if takes(e) {
			sum += uint64(e.Weight)
		}
	}
	if load == 0 || sum == 0 {
		return out
	}
	for i, e := range endpoints {
		if takes(e) {
			out[i] = max(1, load*fine*uint64(e.Weight)/sum)
		}
	}
	return out
}

func picked(endpoints []weighted, of func(plan.Endpoint) bool) []weighted {
	if of == nil {
		return endpoints
	}
	var out []weighted
	for _, e := range endpoints {
		if of(e.Endpoint) {
			out = append(out, e)
		}
	}
	return out
}

func total(endpoints []weighted) (sum uint64) {
	for _, e := range endpoints {
		sum += e.weight
	}
	return sum
}

// domainPart is a trust domain with its share of the load.
type domainPart struct {
	domain spiffeid.TrustDomain
	load   uint64
}

// domains returns the domains of all endpoints of a plan: first those with load, then the others in order of priority.
func domains(planned plan.Plan) []domainPart {
	var parts []domainPart
	index := map[spiffeid.TrustDomain]int{}
	add := func(td spiffeid.TrustDomain, load uint64) {
		i, known := index[td]
		if !known {
			i = len(parts)
			index[td] = i
			parts = append(parts, domainPart{domain: td})
		}
		parts[i].load += load
	}
	for _, p := range planned.Priorities {
		for _, l := range p.Localities {
			loaded, _ := split(p, l)
			for _, e := range loaded {
				add(e.ID.TrustDomain(), e.weight)
			}
		}
	}
	for _, p := range planned.Priorities {
		for _, l := range p.Localities {
			for _, e := range l.Endpoints {
				add(e.ID.TrustDomain(), 0)
			}
		}
	}
	return parts
}

// maxWeightSum is the limit of xDS clients for the sum of the weights of a level, or of a locality.
const maxWeightSum = 1<<32 - 1

// fit scales weights down if their sum exceeds maxWeightSum. None becomes less than 1.
func fit(weights []uint64) []uint32 {
	sum := uint64(0)
	for _, w := range weights {
		sum += w
	}
	out := make([]uint32, len(weights))
	shift := 0
	for sum>>shift > maxWeightSum-uint64(len(weights)) {
		shift++
	}
	for i, w := range weights {
		out[i] = uint32(max(1, w>>shift)) //nolint:gosec // G115: the sum of all is below 2³²
	}
	return out
}
