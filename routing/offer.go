package routing

import (
	"slices"
	"strings"
	"sync"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// maxShelved bounds the sets that are kept made up.
const maxShelved = 4096

// shelf keeps the sets that are offered to peers, so that many streams with the same services cost one look at each change.
type shelf struct {
	mu   sync.Mutex
	sets map[shelfKey]shelved
}

// shelfKey names a set by the terms of the exports that it is made of, so that peers with the same terms share it.
type shelfKey struct {
	sharedKey
	terms string
}

type shelved struct {
	services []*service // of each export
	set      *sharedSet
}

func newShelf() *shelf { return &shelf{sets: make(map[shelfKey]shelved)} }

// offered returns what the peer of some foreign domains may have of a service in a hosted domain, and the services here that it is
// made of. It is called with domains that are in force and name the peer. What is not exported is withheld, in the same words as
// what does not exist.
func (m *Manager) offered(r raftstore.Reader, domains []string, key sharedKey) (*sharedSet, []string, error) {
	withheld := newSharedSet(key, true, nil)
	if hosted, err := m.agreements.Hosted(r, key.domain); err != nil || !hosted {
		return withheld, nil, err
	}
	var found []Export
	var services []string
	name := shelfKey{sharedKey: key}
	for _, to := range domains {
		row, ok, err := Exports.Get(r, exportKey(to, key.service))
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue
		}
		e, err := exportFromRow(row)
		if err != nil {
			return nil, nil, err
		}
		agreement, ok, err := m.agreements.With(r, to)
		if err != nil {
			return nil, nil, err
		}
		if !ok || !agreement.InForce || !e.counts(agreement) {
			continue
		}
		found = append(found, e)
		services = append(services, e.Service)
		name.terms += e.terms() + "\n"
	}
	if len(found) == 0 {
		return withheld, nil, nil
	}
	present := make([]*service, len(found))
	for n, e := range found {
		var err error
		if present[n], err = m.catalog.service(r, e.Service); err != nil {
			return nil, nil, err
		}
	}
	if set := m.shelf.get(name, present); set != nil {
		return set, services, nil
	}
	set := newSharedSet(key, false, covered(key, found, present))
	m.shelf.put(name, shelved{present, set})
	return set, services, nil
}

// covered are the instances that exports cover, in order of address. Of two at one address the first is offered, as in a hint.
func covered(key sharedKey, found []Export, present []*service) []*ententev1.PeerInstance {
	var list []Instance
	for n, e := range found {
		for _, i := range present[n].instances {
			if i.ID.TrustDomain().Name() == key.domain && e.covers(i) {
				list = append(list, i)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Instance) int { return plan.CompareEndpoints(a.Endpoint, b.Endpoint) })
	out := make([]*ententev1.PeerInstance, 0, len(list))
	for n, i := range list {
		if n == 0 || list[n-1].Address != i.Address {
			out = append(out, traveling(i))
		}
	}
	slices.SortFunc(out, func(a, b *ententev1.PeerInstance) int { return strings.Compare(a.GetAddress(), b.GetAddress()) })
	return out
}

func (s *shelf) get(name shelfKey, present []*service) *sharedSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.sets[name]; ok && slices.Equal(known.services, present) {
		return known.set
	}
	return nil
}

func (s *shelf) put(name shelfKey, made shelved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sets[name]; !ok && len(s.sets) >= maxShelved {
		clear(s.sets)
	}
	s.sets[name] = made
}
