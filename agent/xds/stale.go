package xds

import (
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/ententehq/entente/internal/xdsupdate"
)

// withoutForeign returns an assignment without the instances that members mark as those of a foreign domain.
func withoutForeign(r *xdsupdate.Resource) (*xdsupdate.Resource, error) {
	var a endpoint.ClusterLoadAssignment
	if err := r.Body.UnmarshalTo(&a); err != nil {
		return nil, err
	}
	left, out := false, a.GetEndpoints()
	a.Endpoints = nil
	next, last := uint32(0), uint32(0)
	for _, l := range out { // in order of priority, which must stay without gaps
		endpoints := l.GetLbEndpoints()
		l.LbEndpoints = nil
		for _, e := range endpoints {
			if xdsupdate.Foreign(e) {
				left = true
			} else {
				l.LbEndpoints = append(l.LbEndpoints, e)
			}
		}
		if len(l.GetLbEndpoints()) == 0 {
			continue
		}
		if len(a.GetEndpoints()) > 0 && l.GetPriority() != last {
			next++
		}
		last = l.GetPriority()
		l.Priority = next
		a.Endpoints = append(a.Endpoints, l)
	}
	if !left {
		return r, nil
	}
	return xdsupdate.Present(r.Name, &a)
}
