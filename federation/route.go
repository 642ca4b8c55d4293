package federation

import (
	"sync"
	"time"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
)

// preferFor is for how long an endpoint that worked where those before it did not is tried first. After that the configured order
// counts again: one attempt at what is still down is cheap, and what the operator put first is to be used once it is back.
const preferFor = 15 * time.Minute

// route is what a member remembers of the endpoints of one relationship, under one decision of its operator.
type route struct {
	generation uint64
	// works is the endpoint that worked last, and since when it is tried before its turn.
	works    int
	since    time.Time
	attempts []observation.Attempt
}

// order is in which order n endpoints are tried at now.
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

// tried takes down an attempt. An endpoint that goes on working does not prolong its preference.
func (r route) tried(i, n int, a observation.Attempt) route {
	if len(r.attempts) != n {
		r.attempts = make([]observation.Attempt, n)
	} else {
		r.attempts = append([]observation.Attempt(nil), r.attempts...) // the old ones were handed out
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

// routes are those of all relationships that this member fetches.
type routes struct {
	mu     sync.Mutex
	byName map[string]route
}

func newRoutes() *routes { return &routes{byName: make(map[string]route)} }

// of returns the route of a relationship. What was learned under an earlier decision does not count.
func (s *routes) of(name string, r *relationship.Relationship) route {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.byName[name]; known.generation == r.Generation {
		return known
	}
	return route{generation: r.Generation}
}

// tried takes down an attempt, and returns all that is known of the endpoints since.
func (s *routes) tried(name string, r *relationship.Relationship, i int, a observation.Attempt) []observation.Attempt {
	next := s.of(name, r).tried(i, len(r.Endpoints), a)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byName[name] = next
	return next.attempts
}

func (s *routes) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, name)
}

// endpoint is the one that is asked first.
func (s *routes) endpoint(name string, r *relationship.Relationship, now time.Time) endpoint.Remote {
	return r.Endpoints[s.of(name, r).order(len(r.Endpoints), now)[0]]
}
