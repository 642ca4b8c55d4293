package plan

import (
	"cmp"
	"fmt"
	"slices"
)

// The bases: the distance of an instance from its caller, by the levels that both share.
const (
	baseSubZone = iota
	baseZone
	baseRegion
	baseForeign
)

// base compares a locality with that of the caller. Among foreign regions, a failover rule for the region of the caller
// decides.
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

// Exclusion is an endpoint that is not offered, with the reason.
type Exclusion struct {
	Endpoint Endpoint
	Reason   string
}

// prioritize orders the admitted endpoints into priorities without gaps, the nearest first, each split by locality.
func (a *Arrangement) prioritize(caller Locality) [][]weightedGroup {
	type placed struct {
		rank int
		weightedGroup
	}
	// behind is above every base, so that the worst fresh endpoint precedes the best stale one.
	behind := baseForeign + maxRules + 1
	order := make([]placed, len(a.ranked))
	for i, c := range a.ranked {
		rank := a.policy.base(caller, c.locality)
		if c.stale {
			rank += behind
		}
		order[i] = placed{rank, weightedGroup{c, c.weight}}
	}
	slices.SortStableFunc(order, func(a, b placed) int { return cmp.Compare(a.rank, b.rank) })
	groups := make([]weightedGroup, len(order))
	var priorities [][]weightedGroup
	begin := 0
	for i, p := range order {
		groups[i] = p.weightedGroup
		if i+1 == len(order) || order[i+1].rank != p.rank {
			priorities = append(priorities, groups[begin:i+1:i+1])
			begin = i + 1
		}
	}
	return priorities
}

// distributionUnit is the weight of one percent of a distribution: enough to split a target among its localities by
// their weights, and so small that the sum of all weights stays below 2³².
const distributionUnit = 1 << 20

// distribute puts everything that a distribution names into one priority with its percentages as weights. Several
// localities of one target share its weight by their own weights. The second result is what the distribution leaves
// out, by locality.
func (a *Arrangement) distribute(d distribution, caller Locality) ([][]weightedGroup, []Exclusion) {
	var groups []weightedGroup
	var targets []int // of each group
	var out []Exclusion
	sums := make([]uint64, len(d.targets))
	for _, c := range a.localities {
		n := slices.IndexFunc(d.targets, func(t target) bool { return c.locality.Within(t.place) })
		if n < 0 {
			reason := fmt.Sprintf("the distribution rule for callers in %s gives nothing to %s", caller, c.locality)
			out = slices.Grow(out, len(c.endpoints))
			for _, e := range c.endpoints {
				out = append(out, Exclusion{Endpoint: e, Reason: reason})
			}
			continue
		}
		groups, targets = append(groups, weightedGroup{c, c.weight}), append(targets, n)
		sums[n] += c.weight
	}
	if len(groups) == 0 {
		return nil, out
	}
	for i := range groups {
		n := targets[i]
		groups[i].weight = max(1, d.targets[n].percent*distributionUnit*groups[i].weight/sums[n])
	}
	return [][]weightedGroup{groups}, out
}
