package plan

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust/standing"
)

// Arrangement is what the plans of all callers have in common, made once for each state of a service: its endpoints
// grouped by locality and counted, and the endpoints that are offered to no caller. It is immutable, and its endpoints
// are shared by all plans.
type Arrangement struct {
	policy *Policy
	// all is the number of given endpoints, admitted the number of those that are not in excluded.
	all, admitted int
	// ranked are the groups that are ordered by distance: localities, or, if stale trust is demoted, the fresh and the
	// stale part of each.
	ranked []*endpointGroup
	// localities are groups of whole localities, to which distribution rules refer.
	localities []*endpointGroup
	excluded   []Exclusion // in order of address

	once     sync.Once
	messages []*ententev1.HintExclusion // of excluded
}

// endpointGroup is the endpoints of one locality that plans never separate.
type endpointGroup struct {
	locality Locality
	// stale means that all of them have stale trust and are demoted for it.
	stale     bool
	endpoints []Endpoint // in the order of a plan
	tally
	// weight is the sum of all weights, healthyWeight and degradedWeight are those of healthy and of degraded
	// endpoints.
	weight, healthyWeight, degradedWeight uint64

	once     sync.Once
	messages hintMessages
}

// weightedGroup is an endpointGroup in a priority.
type weightedGroup struct {
	*endpointGroup
	// weight is that of the locality in its priority: the sum of the weights of its endpoints, as in Istio, unless a
	// distribution rule sets it.
	weight uint64
}

// Arrange computes what does not depend on the caller. It is a pure function: the same endpoints in any order lead to
// the same plans.
func (p *Policy) Arrange(endpoints []Endpoint) *Arrangement {
	if !slices.IsSortedFunc(endpoints, CompareEndpoints) {
		endpoints = slices.Clone(endpoints)
		slices.SortFunc(endpoints, CompareEndpoints)
	}
	a := &Arrangement{policy: p, all: len(endpoints)}
	var in []*Endpoint
	in, a.excluded = p.admit(endpoints)
	a.admitted = len(in)
	demoted := p.stale == StaleDemote &&
		slices.ContainsFunc(in, func(e *Endpoint) bool { return e.Trust == standing.Stale })
	a.ranked = groupEndpoints(in, demoted)
	switch {
	case !demoted:
		a.localities = a.ranked
	case len(p.distribution) > 0:
		a.localities = groupEndpoints(in, false)
	}
	return a
}

// admit separates the endpoints that can be offered from those that the caller could not authenticate or that would
// occur twice. The endpoints are in order of address.
func (p *Policy) admit(endpoints []Endpoint) (in []*Endpoint, out []Exclusion) {
	in = make([]*Endpoint, 0, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		reason := ""
		switch {
		case !e.Trust.Verifiable():
			reason = e.Trust.Sentence(e.ID.TrustDomain())
		case e.Outranked:
			reason = "another registration at its address counts, under another lease"
		case e.Expired:
			reason = fmt.Sprintf(
				"import_expired: no stream with the cluster of %s has confirmed it for longer than import_ttl",
				e.Origin,
			)
		case e.Trust == standing.Stale && p.stale == StaleDrop:
			reason = fmt.Sprintf(
				"the bundle of %s is stale, and this cluster drops stale trust",
				e.ID.TrustDomain().Name(),
			)
		case len(in) > 0 && in[len(in)-1].Address == e.Address:
			reason = "its address is offered already"
		}
		if reason != "" {
			out = append(out, Exclusion{Endpoint: *e, Reason: reason})
			continue
		}
		in = append(in, e)
	}
	return in, out
}

// groupEndpoints groups endpoints by locality, and by stale trust if separate is set. The result is in order of
// locality, fresh before stale.
func groupEndpoints(endpoints []*Endpoint, separate bool) []*endpointGroup {
	type kind struct {
		locality Locality
		stale    bool
	}
	known := make(map[kind]int)
	var list []*endpointGroup
	of := make([]int, len(endpoints))
	for i, e := range endpoints {
		key := kind{e.Locality, separate && e.Trust == standing.Stale}
		n, ok := known[key]
		if !ok {
			n = len(list)
			known[key] = n
			list = append(list, &endpointGroup{locality: key.locality, stale: key.stale})
		}
		of[i] = n
		list[n].add(e)
	}
	// All groups share one array.
	room := make([]Endpoint, len(endpoints))
	for _, c := range list {
		c.endpoints, room = room[:0:c.total], room[c.total:]
	}
	for i, e := range endpoints {
		c := list[of[i]]
		c.endpoints = append(c.endpoints, *e)
	}
	slices.SortFunc(list, func(a, b *endpointGroup) int {
		return cmp.Or(a.locality.Compare(b.locality), compareBool(a.stale, b.stale))
	})
	return list
}

// add counts an endpoint.
func (c *endpointGroup) add(e *Endpoint) {
	c.total++
	c.weight += uint64(e.Weight)
	switch e.Health {
	case Healthy:
		c.healthy++
		c.healthyWeight += uint64(e.Weight)
	case Degraded:
		c.degraded++
		c.degradedWeight += uint64(e.Weight)
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
