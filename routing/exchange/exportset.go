package exchange

import (
	"slices"
	"strings"
	"sync"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

// maxExportedSets bounds the sets that are cached.
const maxExportedSets = 4096

// exportedSets builds the sets that are exported, and caches them, so that a change costs the same for one stream and
// for many that export the same services.
type exportedSets struct {
	catalog    *registry.Catalog
	agreements Agreements

	mu     sync.Mutex
	cached map[exportedSetKey]cachedSet
}

// exportedSetKey identifies a set by the terms of the exports that it consists of, so that peers with equal terms share
// it.
type exportedSetKey struct {
	setKey
	terms string
}

type cachedSet struct {
	services []*registry.Service // of each export
	set      *exportedSet
}

func newExportedSets(catalog *registry.Catalog, agreements Agreements) *exportedSets {
	return &exportedSets{catalog: catalog, agreements: agreements, cached: make(map[exportedSetKey]cachedSet)}
}

// get returns a set as it is exported to the peer of some foreign domains, and the services here that it consists of.
// The relationships with the domains must be in force and name the peer. A set that is not exported is marked so, and
// equal to one that does not exist.
func (s *exportedSets) get(r raftstore.Reader, domains []string, key setKey) (*exportedSet, []string, error) {
	notExported := newExportedSet(key, true, nil)
	if hosted, err := s.agreements.Hosted(r, key.domain); err != nil || !hosted {
		return notExported, nil, err
	}
	exports, err := s.exports(r, domains, key.service)
	if err != nil || len(exports) == 0 {
		return notExported, nil, err
	}
	cacheKey := exportedSetKey{setKey: key}
	names := make([]string, len(exports))
	services := make([]*registry.Service, len(exports))
	for n, e := range exports {
		cacheKey.terms += e.terms() + "\n"
		names[n] = e.Service
		if services[n], err = s.catalog.Service(r, e.Service); err != nil {
			return nil, nil, err
		}
	}
	if set := s.find(cacheKey, services); set != nil {
		return set, names, nil
	}
	set := newExportedSet(key, false, coveredInstances(key, exports, services))
	s.put(cacheKey, cachedSet{services, set})
	return set, names, nil
}

// exports returns the exports of a name to domains, as far as they count.
func (s *exportedSets) exports(r raftstore.Reader, domains []string, name string) (exports []serviceExport, err error) {
	for _, to := range domains {
		e, found, err := exportTable.get(r, exportKey(to, name))
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		agreement, found, err := s.agreements.With(r, to)
		if err != nil {
			return nil, err
		}
		if found && agreement.InForce && e.counts(agreement) {
			exports = append(exports, e)
		}
	}
	return exports, nil
}

// coveredInstances returns the instances that exports cover, in order of address. Of several at one address the first
// is exported, as in a hint.
func coveredInstances(key setKey, exports []serviceExport, services []*registry.Service) []*ententev1.PeerInstance {
	var covered []registry.Instance
	for n, e := range exports {
		for _, i := range services[n].Instances {
			if i.ID.TrustDomain().Name() == key.domain && e.covers(i) {
				covered = append(covered, i)
			}
		}
	}
	slices.SortStableFunc(
		covered,
		func(a, b registry.Instance) int { return plan.CompareEndpoints(a.Endpoint, b.Endpoint) },
	)
	instances := make([]*ententev1.PeerInstance, 0, len(covered))
	for n, i := range covered {
		if n == 0 || covered[n-1].Address != i.Address {
			instances = append(instances, peerInstance(i))
		}
	}
	slices.SortFunc(
		instances,
		func(a, b *ententev1.PeerInstance) int { return strings.Compare(a.GetAddress(), b.GetAddress()) },
	)
	return instances
}

func (s *exportedSets) find(key exportedSetKey, services []*registry.Service) *exportedSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.cached[key]; ok && slices.Equal(known.services, services) {
		return known.set
	}
	return nil
}

func (s *exportedSets) put(key exportedSetKey, c cachedSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.cached[key]; !ok && len(s.cached) >= maxExportedSets {
		clear(s.cached)
	}
	s.cached[key] = c
}
