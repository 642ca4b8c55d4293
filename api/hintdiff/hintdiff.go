// Package hintdiff makes the differences between hints that a watch sends, and the hints from the differences. A
// service of thousands of instances has a hint of hundreds of kilobytes, of which a change of one instance concerns a
// few bytes.
//
// [Between] is used by the server, [Apply] by clients. Both share the unchanged parts of their arguments, which must
// not be changed.
package hintdiff

import (
	"errors"
	"fmt"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// endpoint and exclusion are the contents of the elements, to be compared.
type endpoint struct {
	address, spiffeID, origin string
	health                    ententev1.Health
	freshness                 ententev1.Freshness
	weight                    uint32
	kept                      bool
}

type exclusion struct {
	address, spiffeID, origin, reason string
	region, zone, subZone             string
}

func endpointOf(e *ententev1.HintEndpoint) endpoint {
	return endpoint{
		e.GetAddress(), e.GetSpiffeId(), e.GetOrigin(), e.GetHealth(), e.GetFreshness(), e.GetWeight(), e.GetKept(),
	}
}

func exclusionOf(e *ententev1.HintExclusion) exclusion {
	l := e.GetLocality()
	return exclusion{
		e.GetAddress(), e.GetSpiffeId(), e.GetOrigin(), e.GetReason(), l.GetRegion(), l.GetZone(), l.GetSubZone(),
	}
}

// Between returns the difference between two hints for the same caller and service.
func Between(was, is *ententev1.Hint) *ententev1.Hint {
	out := &ententev1.Hint{
		Revision: is.GetRevision(), Reason: is.GetReason(), Difference: &ententev1.HintDifference{},
	}
	for _, p := range is.GetPriorities() {
		priority := &ententev1.HintPriority{
			Priority: p.GetPriority(), Load: p.GetLoad(), DegradedLoad: p.GetDegradedLoad(), Panic: p.GetPanic(),
		}
		for _, l := range p.GetLocalities() {
			priority.Localities = append(priority.Localities, &ententev1.HintLocality{
				Locality: l.GetLocality(), Share: l.GetShare(), DegradedShare: l.GetDegradedShare(),
			})
			out.Difference.EndpointCounts = append(out.Difference.EndpointCounts, uint32(len(l.GetEndpoints())))
		}
		out.Priorities = append(out.Priorities, priority)
	}
	out.Difference.Endpoints = parts(endpoints(was), endpoints(is), endpointOf,
		func(p *ententev1.HintPart, e *ententev1.HintEndpoint) { p.Endpoints = append(p.Endpoints, e) })
	out.Difference.Excluded = parts(was.GetExcluded(), is.GetExcluded(), exclusionOf,
		func(p *ententev1.HintPart, e *ententev1.HintExclusion) { p.Excluded = append(p.Excluded, e) })
	return out
}

// endpoints returns the endpoints of all localities of a hint.
func endpoints(h *ententev1.Hint) (all []*ententev1.HintEndpoint) {
	for _, p := range h.GetPriorities() {
		for _, l := range p.GetLocalities() {
			all = append(all, l.GetEndpoints()...)
		}
	}
	return all
}

// parts returns a list as parts of the one before.
func parts[M any, K comparable](
	was, is []M, content func(M) K, add func(*ententev1.HintPart, M),
) (out []*ententev1.HintPart) {
	known := make(map[K]uint32, len(was))
	for i, m := range was {
		known[content(m)] = uint32(i)
	}
	added := true // the last part has new elements, so that nothing more can be taken over in it
	for _, m := range is {
		at, found := known[content(m)]
		switch {
		case !found && len(out) == 0:
			out = append(out, &ententev1.HintPart{})
			fallthrough
		case !found:
			add(out[len(out)-1], m)
			added = true
		case !added && out[len(out)-1].From+out[len(out)-1].Count == at:
			out[len(out)-1].Count++
		default:
			out = append(out, &ententev1.HintPart{From: at, Count: 1})
			added = false
		}
	}
	return out
}

// errDifference is wrapped in the error for a difference that does not fit the hint before.
var errDifference = errors.New("the difference does not fit the hint before")

// Apply returns the hint that follows another one, by the difference.
func Apply(was, difference *ententev1.Hint) (*ententev1.Hint, error) {
	d := difference.GetDifference()
	out := &ententev1.Hint{
		Service: was.GetService(), Locality: was.GetLocality(), Revision: difference.GetRevision(),
		Priorities: difference.GetPriorities(), Reason: difference.GetReason(),
	}
	all, err := joined(endpoints(was), d.GetEndpoints(), (*ententev1.HintPart).GetEndpoints)
	if err != nil {
		return nil, err
	}
	if out.Excluded, err = joined(was.GetExcluded(), d.GetExcluded(), (*ententev1.HintPart).GetExcluded); err != nil {
		return nil, err
	}
	counts := d.GetEndpointCounts()
	for _, p := range out.GetPriorities() {
		for _, l := range p.GetLocalities() {
			if len(counts) == 0 || uint64(counts[0]) > uint64(len(all)) {
				return nil, fmt.Errorf("%w: a locality has no endpoints", errDifference)
			}
			l.Endpoints, all, counts = all[:counts[0]:counts[0]], all[counts[0]:], counts[1:]
		}
	}
	if len(all) > 0 || len(counts) > 0 {
		return nil, fmt.Errorf("%w: endpoints are in no locality", errDifference)
	}
	return out, nil
}

// maxElements bounds a list: no service has as many instances.
const maxElements = 1 << 20

// joined returns a list from its parts.
func joined[M any](was []M, parts []*ententev1.HintPart, added func(*ententev1.HintPart) []M) (out []M, err error) {
	for _, p := range parts {
		from, to := uint64(p.GetFrom()), uint64(p.GetFrom())+uint64(p.GetCount())
		if to > uint64(len(was)) {
			return nil, fmt.Errorf("%w: elements %d to %d of %d", errDifference, from, to, len(was))
		}
		if uint64(len(out))+to-from > maxElements {
			return nil, fmt.Errorf("%w: more than %d elements", errDifference, maxElements)
		}
		out = append(append(out, was[from:to]...), added(p)...)
	}
	return out, nil
}
