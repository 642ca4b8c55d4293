package plan

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust"
)

// Arrangement is what the plans of all callers have in common, made once for each state of a service: its endpoints by
// locality, counted and weighed, and what is offered to nobody. A plan is then arithmetic over localities. It is
// immutable, and its endpoints are shared by all plans made of it.
type Arrangement struct {
	policy *Policy
	// all is how many endpoints were given, and admitted how many of them are not in excluded.
	all, admitted int
	// ranked are what a distance is given to: localities, and if stale trust is demoted, the fresh and the stale part
	// of each.
	ranked []*endpointGroup
	// places are whole localities, of which distribution rules speak.
	places   []*endpointGroup
	excluded []Exclusion // in order of address

	once    sync.Once
	refused []*ententev1.HintExclusion // the messages of excluded
}

// endpointGroup is the endpoints of one locality that plans never separate.
type endpointGroup struct {
	locality Locality
	// stale says that all of them have stale trust, for which they are demoted.
	stale     bool
	endpoints []Endpoint // in the order of a plan
	tally
	// weight is the sum of all weights, healthyWeight and degradedWeight of those of that health.
	weight, healthyWeight, degradedWeight uint64

	once     sync.Once
	messages hintMessages
}

// weightedGroup is a cohort in a priority.
type weightedGroup struct {
	*endpointGroup
	// weight is the locality's among those of its priority: the sum of its endpoints' weights, as in Istio, unless a
	// distribution rule sets it.
	weight uint64
}

// Arrange sorts out what does not depend on the caller. It is a pure function: the same endpoints, in whatever order,
// make the same plans.
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
		slices.ContainsFunc(in, func(e *Endpoint) bool { return e.Trust == trust.Stale })
	a.ranked = groupEndpoints(in, demoted)
	switch {
	case !demoted:
		a.places = a.ranked
	case len(p.distribution) > 0:
		a.places = groupEndpoints(in, false)
	}
	return a
}

// admit leaves out what the caller could not authenticate anyway, and what would appear twice. It is given endpoints in
// order of address, so that those which share one follow each other.
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
		case e.Trust == trust.Stale && p.stale == StaleDrop:
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

// groupEndpoints gathers endpoints by locality, the fresh and the stale of each apart if that matters. The result is in
// order of locality, fresh before stale.
func groupEndpoints(endpoints []*Endpoint, apart bool) []*endpointGroup {
	type kind struct {
		locality Locality
		stale    bool
	}
	known := make(map[kind]int)
	var list []*endpointGroup
	of := make([]int, len(endpoints))
	for i, e := range endpoints {
		key := kind{e.Locality, apart && e.Trust == trust.Stale}
		n, ok := known[key]
		if !ok {
			n = len(list)
			known[key] = n
			list = append(list, &endpointGroup{locality: key.locality, stale: key.stale})
		}
		of[i] = n
		list[n].add(e)
	}
	// All share one array, in which each has as much room as it needs.
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
