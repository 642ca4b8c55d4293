package federation

import (
	"slices"
	"strings"
	"time"

	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/trust"
)

// longestRest is after how long the leader judges even what gave no reason for it.
const longestRest = time.Minute

// standings are what a leader judges: each relationship when its standing can have become another, and not ten thousand of them every second.
// They belong to one goroutine.
type standings struct {
	manager *Manager
	leading time.Time
	// due are those that the next look judges, rest those that have time, each in one of both.
	due  mirror.NameSet
	rest *relationship.Queue
}

// newStandings begins a lead: everything is to be judged.
func (m *Manager) newStandings(leading time.Time) *standings {
	s := &standings{manager: m, leading: leading}
	m.rejudged.Take()
	s.all()
	return s
}

func (s *standings) all() {
	s.due, s.rest = mirror.NameSet{}, relationship.NewQueue()
	for _, name := range s.manager.catalog.Names() {
		s.due[name] = struct{}{}
	}
}

// look judges what is due. Relationships that are not in force are left as they stood: nothing is learned of them meanwhile.
func (s *standings) look() (found []transition) {
	m := s.manager
	leading := s.leading
	if listening := m.observations.Received.Lead().Since; listening.After(leading) {
		leading = listening
	}
	affected := m.rejudged.Take()
	if affected.All {
		s.all()
	}
	for name := range affected.Keys {
		s.rest.Remove(name)
		s.due[name] = struct{}{}
	}
	now := m.now()
	for name, ok := s.rest.Due(now); ok; name, ok = s.rest.Due(now) {
		s.due[name] = struct{}{}
	}
	for name := range s.due {
		e, exists := m.catalog.Get(name)
		if !exists || !e.Rel.InForce {
			delete(s.due, name) // it is judged when that changes
			continue
		}
		r := e.Rel
		heard := m.observations.Success(name)
		last := relationship.LastKnownSuccess(heard, r.Recorded, leading, r.Standing.State)
		facts := e.Holding.Facts(r, last, m.config.MinRefresh)
		is := relationship.Judge(now, facts)
		switch {
		case is != r.Standing:
			if !relationship.Premature(r.Standing.State, is.State, now.Sub(leading), facts.Interval) {
				found = append(found, transition{name, r.Generation, e.Holding.Revision, r.Standing, is, last})
			}
		case !heard.IsZero():
			if until := restsUntil(now, is, facts); until.After(now.Add(keepEvery)) {
				delete(s.due, name)
				s.rest.Set(name, until)
			}
		}
	}
	slices.SortFunc(found, func(a, b transition) int { return strings.Compare(a.name, b.name) })
	return found
}

// restsUntil says when a standing that is true now is to be looked at again, if nothing but time and further successes comes to what it was
// judged by. Whatever a success could make better is looked at always.
func restsUntil(now time.Time, s relationship.Standing, f relationship.Facts) time.Time {
	soon := now.Add(keepEvery)
	if s.State != trust.Fresh || s.X509Expired && !f.X509Until.IsZero() || s.JWTExpired && f.JWTKeys > 0 {
		return soon
	}
	until := now.Add(longestRest)
	ends := []time.Time{f.LastSuccess.Add(relationship.StaleAfter * f.Interval)}
	if !f.X509Until.IsZero() {
		ends = append(ends, f.X509Until)
	}
	for _, most := range []time.Duration{f.MaxStaleX509, f.MaxStaleJWT} {
		if most > 0 {
			ends = append(ends, f.LastSuccess.Add(most))
		}
	}
	for _, end := range ends {
		if !end.Before(now) && end.Before(until) {
			until = end
		}
	}
	if until.Before(soon) {
		return soon
	}
	return until
}
