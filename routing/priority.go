package routing

import (
	"fmt"
	"maps"
	"slices"
)

// The bases: how far an instance is from its caller, in the levels that both share.
const (
	baseSubZone = iota
	baseZone
	baseRegion
	baseForeign
)

// base compares a locality with the caller's. Among foreign regions, a failover rule for the caller's region decides.
func (p *Policy) base(caller, l Locality) int {
	switch {
	case l == caller:
		return baseSubZone
	case l.Region == caller.Region && l.Zone == caller.Zone:
		return baseZone
	case l.Region == caller.Region:
		return baseRegion
	}
	order, ruled := p.failover[caller.Region]
	if !ruled {
		return baseForeign
	}
	if i := slices.Index(order, l.Region); i >= 0 {
		return baseForeign + i
	}
	return baseForeign + len(order)
}

// Exclusion is an instance that is not offered, and why.
type Exclusion struct {
	Endpoint Endpoint
	Reason   string
}

// group is what shares a priority and a locality. Its endpoints stand in the order in which they were given.
type group struct {
	locality  Locality
	endpoints []Endpoint
	// weight is the locality's among those of its priority: the sum of its endpoints' weights, as in Istio, unless a
	// distribution rule sets it.
	weight uint64
}

// admit leaves out what the caller could not authenticate anyway, and what would appear twice. It is given endpoints in order of
// address, so that those which share one follow each other.
func (p *Policy) admit(endpoints []Endpoint) (in []Endpoint, out []Exclusion) {
	in = make([]Endpoint, 0, len(endpoints))
	for _, e := range endpoints {
		reason := e.Trust.refusal(e.ID.TrustDomain())
		switch {
		case reason != "":
		case e.Expired:
			reason = fmt.Sprintf("import_expired: no stream with the cluster of %s has confirmed it for longer than import_ttl", e.Origin)
		case e.Trust == TrustStale && p.stale == StaleDrop:
			reason = fmt.Sprintf("the bundle of %s is stale, and this cluster drops stale trust", e.ID.TrustDomain().Name())
		case len(in) > 0 && in[len(in)-1].Address == e.Address:
			reason = "its address is offered already"
		}
		if reason != "" {
			out = append(out, Exclusion{Endpoint: e, Reason: reason})
			continue
		}
		in = append(in, e)
	}
	return in, out
}

// prioritize orders what was admitted into priorities without gaps, the nearest first, each split by locality.
func (p *Policy) prioritize(caller Locality, endpoints []Endpoint) [][]group {
	type ranked struct {
		rank     int
		locality Locality
	}
	// behind is above every base, so that the worst fresh instance stands before the best stale one.
	behind := baseForeign + maxRules + 1
	known := make(map[ranked]int)
	var groups []group
	var ranks, sizes []int // of each group
	of := make([]int, len(endpoints))
	for i, e := range endpoints {
		rank := p.base(caller, e.Locality)
		if e.Trust == TrustStale && p.stale == StaleDemote {
			rank += behind
		}
		key := ranked{rank, e.Locality}
		n, ok := known[key]
		if !ok {
			n = len(groups)
			known[key] = n
			groups, ranks, sizes = append(groups, group{locality: e.Locality}), append(ranks, rank), append(sizes, 0)
		}
		of[i] = n
		sizes[n]++
		groups[n].weight += uint64(e.Weight)
	}
	// All groups share one array, in which each has as much room as it needs.
	room := make([]Endpoint, len(endpoints))
	for n, size := range sizes {
		groups[n].endpoints, room = room[:0:size], room[size:]
	}
	for i, e := range endpoints {
		groups[of[i]].endpoints = append(groups[of[i]].endpoints, e)
	}
	byRank := make(map[int][]group)
	for n, g := range groups {
		byRank[ranks[n]] = append(byRank[ranks[n]], g)
	}
	priorities := make([][]group, 0, len(byRank))
	for _, rank := range slices.Sorted(maps.Keys(byRank)) {
		slices.SortFunc(byRank[rank], func(a, b group) int { return a.locality.Compare(b.locality) })
		priorities = append(priorities, byRank[rank])
	}
	return priorities
}

func addTo(groups map[Locality]*group, e Endpoint) {
	g := groups[e.Locality]
	if g == nil {
		g = &group{locality: e.Locality}
		groups[e.Locality] = g
	}
	g.endpoints = append(g.endpoints, e)
	g.weight += uint64(e.Weight)
}

func sorted(groups map[Locality]*group) []group {
	list := make([]group, 0, len(groups))
	for _, g := range groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b group) int { return a.locality.Compare(b.locality) })
	return list
}

// distributionUnit is what one percent of a distribution rule is worth as a weight: enough to split a target among its
// localities by their weights, and little enough for the sum of all to stay below 2³².
const distributionUnit = 1 << 20

// distribute puts all that a rule names into one priority, weighted by the rule. Where a target holds several
// localities, they share its weight by their own weights. The second result is what the rule leaves out.
func (d distribution) distribute(caller Locality, endpoints []Endpoint) ([][]group, []Exclusion) {
	groups := make(map[Locality]*group)
	var out []Exclusion
	for _, e := range endpoints {
		if !slices.ContainsFunc(d.targets, func(t target) bool { return e.Locality.within(t.place) }) {
			out = append(out, Exclusion{Endpoint: e, Reason: fmt.Sprintf("the distribution rule for callers in %s gives nothing to %s", caller, e.Locality)})
			continue
		}
		addTo(groups, e)
	}
	if len(groups) == 0 {
		return nil, out
	}
	for _, t := range d.targets {
		var own []*group
		sum := uint64(0)
		for _, g := range groups {
			if g.locality.within(t.place) {
				own = append(own, g)
				sum += g.weight
			}
		}
		for _, g := range own {
			g.weight = max(1, t.percent*distributionUnit*g.weight/sum)
		}
	}
	return [][]group{sorted(groups)}, out
}
