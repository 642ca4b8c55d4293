package fetch

import (
	"slices"
	"sync"
	"time"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
)

// preferFor is how long an endpoint that worked, where those before it did not, is tried first. After that the
// configured order applies again: one attempt at an endpoint that is still down is cheap, and the operator's first
// choice is used again once it is back.
const preferFor = 15 * time.Minute

// route is what a member remembers of the endpoints of one relationship, under one of its generations.
type route struct {
	generation uint64
	// works is the endpoint that worked last, and since when it is preferred.
	works    int
	since    time.Time
	attempts []observation.Attempt
}

// order returns the order in which n endpoints are tried at now.
func (r route) order(n int, now time.Time) []int {
	first := 0
	if r.works < n && !r.since.IsZero() && now.Sub(r.since) < preferFor {
		first = r.works
	}
	order := []int{first}
	for i := range n {
		if i != first {
			order = append(order, i)
		}
	}
	return order
}

// tried returns the route after an attempt. An endpoint that keeps working does not prolong its preference.
func (r route) tried(i, n int, a observation.Attempt) route {
	if len(r.attempts) != n {
		r.attempts = make([]observation.Attempt, n)
	} else {
		r.attempts = slices.Clone(r.attempts) // the old ones were handed out
	}
	r.attempts[i] = a
	if a.Error != "" {
		return r
	}
	switch {
	case i == 0:
		r.works, r.since = 0, time.Time{}
	case r.works != i || r.since.IsZero() || a.At.Sub(r.since) >= preferFor:
		r.works, r.since = i, a.At
	}
	return r
}

// Routes remembers which endpoint of each relationship works. It is safe for concurrent use.
type Routes struct {
	mu     sync.Mutex
	byName map[string]route
}

// NewRoutes returns empty routes.
func NewRoutes() *Routes { return &Routes{byName: make(map[string]route)} }

// Endpoint returns the endpoint of a relationship that is tried first at now.
func (s *Routes) Endpoint(name string, r *relationship.Relationship, now time.Time) endpoint.Remote {
	return r.Endpoints[s.of(name, r).order(len(r.Endpoints), now)[0]]
}

// of returns the route of a relationship. What was learned under an earlier generation is dropped.
func (s *Routes) of(name string, r *relationship.Relationship) route {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.byName[name]; known.generation == r.Generation {
		return known
	}
	return route{generation: r.Generation}
}

// tried records an attempt, and returns the last attempts at all endpoints.
func (s *Routes) tried(name string, r *relationship.Relationship, i int, a observation.Attempt) []observation.Attempt {
	next := s.of(name, r).tried(i, len(r.Endpoints), a)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byName[name] = next
	return next.attempts
}

func (s *Routes) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, name)
}
