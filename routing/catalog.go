package routing

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// maxCached bounds the services whose instances are kept decoded.
const maxCached = 16384

// catalog keeps the instances of the services that were asked for, decoded, for as long as nothing changed below them.
// A hint then costs no decoding, which would be most of it.
type catalog struct {
	mu       sync.RWMutex
	services map[string]cached
}

// cached is a service with what its rows were read at. Leases are of no service, so that they move more often than it does.
type cached struct {
	*service
	read serviceRevisions
}

// service is what is registered of one service. It is immutable but for what was already computed of it, and the same for as long as nothing of it changes.
type service struct {
	instances []Instance // in order of address
	// domains are those of the instances, and domainOf says for each instance which.
	domains  []spiffeid.TrustDomain
	domainOf []int
	leases   map[string]leaseState

	arrangements plan.Arrangements
}

type serviceRevisions struct{ instances, sets, leases, imports raftstore.Revision }

// importsRevision is that of the last change of what decides whether the imported instances of a service count.
func importsRevision(r raftstore.Reader, prefix string) raftstore.Revision {
	return max(Imports.PrefixRevision(r, prefix), ImportedSets.PrefixRevision(r, prefix), ImportSources.PrefixRevision(r, ""))
}

func newCatalog() *catalog { return &catalog{services: make(map[string]cached)} }

// service returns a service in the revision that r reads. What it returns is shared; do not change it.
func (c *catalog) service(r raftstore.Reader, name string) (*service, error) {
	prefix := servicePrefix(name)
	now := serviceRevisions{
		instances: Instances.PrefixRevision(r, prefix), sets: Sets.PrefixRevision(r, prefix), leases: Leases.PrefixRevision(r, ""),
		imports: importsRevision(r, prefix),
	}
	c.mu.RLock()
	known, ok := c.services[name]
	c.mu.RUnlock()
	if ok && known.read == now {
		return known.service, nil
	}
	if ok && known.read.instances == now.instances && known.read.sets == now.sets && known.read.imports == now.imports {
		// Some lease changed; it may be another service's.
		same, err := known.sameLeases(r)
		if err != nil {
			return nil, err
		}
		if same {
			c.keep(name, cached{known.service, now})
			return known.service, nil
		}
	}
	list, err := decode(r, prefix)
	if err != nil {
		return nil, err
	}
	s, err := newService(r, list)
	if err != nil {
		return nil, err
	}
	c.keep(name, cached{s, now})
	return s, nil
}

func (c *catalog) keep(name string, s cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.services[name]
	switch {
	case ok && (known.read.instances > s.read.instances || known.read.sets > s.read.sets || known.read.leases > s.read.leases || known.read.imports > s.read.imports):
		// A slower reader of an older state.
	case len(s.instances) == 0:
		// Callers can ask for any name; only those that exist are kept.
		delete(c.services, name)
	default:
		if !ok && len(c.services) >= maxCached {
			clear(c.services)
		}
		c.services[name] = s
	}
}

func newService(r raftstore.Reader, list []Instance) (*service, error) {
	slices.SortFunc(list, standing)
	for i := 1; i < len(list); i++ {
		list[i].Outranked = list[i].Origin == "" && list[i].Address == list[i-1].Address
	}
	s := &service{instances: list, domainOf: make([]int, len(list)), leases: make(map[string]leaseState)}
	number := make(map[spiffeid.TrustDomain]int)
	for i, instance := range list {
		td := instance.ID.TrustDomain()
		n, known := number[td]
		if !known {
			n = len(s.domains)
			number[td] = n
			s.domains = append(s.domains, td)
		}
		s.domainOf[i] = n
		if _, known := s.leases[instance.Lease]; instance.Lease != "" && instance.Origin == "" && !known {
			state, err := stateOf(r, instance.Lease)
			if err != nil {
				return nil, err
			}
			s.leases[instance.Lease] = state
		}
	}
	return s, nil
}

// standing compares two instances of one service by their addresses, and where they share one, by which of the two counts: what is
// registered here before what was imported; under a lease that holds before one that has run out; the newest registration first.
// A control plane that lost its lease registers all that it has under another.
func standing(a, b Instance) int {
	return cmp.Or(
		a.Address.Compare(b.Address), strings.Compare(a.Origin, b.Origin), lapsedLast(a, b),
		b.Registered.Compare(a.Registered), cmp.Compare(b.Revision, a.Revision), strings.Compare(a.Lease, b.Lease),
	)
}

func lapsedLast(a, b Instance) int {
	switch {
	case a.Lapsed == b.Lapsed:
		return 0
	case b.Lapsed:
		return -1
	}
	return 1
}

// sameLeases says whether the leases of the instances are as they were. A lease whose instances do not count, since it is gone,
// does not come back: IDs are drawn anew.
func (s *service) sameLeases(r raftstore.Reader) (bool, error) {
	for lease, was := range s.leases {
		state, err := stateOf(r, lease)
		if err != nil || state != was {
			return false, err
		}
	}
	return true, nil
}

// counted is how much is registered, with what leases that are gone left behind.
type counted struct {
	// instances are those registered here, services how many each service has, imported ones with them.
	instances int
	services  map[string]int
	// imported is how many were imported, from how many from each trust domain.
	imported int
	from     map[string]int
}

// counts counts what is registered, at most once in a while: counting goes through all rows.
type counts struct {
	mu   sync.Mutex
	last counted
	read raftstore.Revision
	at   time.Time
}

// countEvery is how old a count may be. As much as is registered in that time can slip past a bound.
const countEvery = time.Second

func (c *counts) of(r raftstore.Reader, now time.Time) (counted, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	revision := max(Instances.PrefixRevision(r, ""), Sets.PrefixRevision(r, ""))
	if c.last.services != nil && (c.read >= revision || now.Sub(c.at) < countEvery) {
		return c.last, nil
	}
	next := counted{services: make(map[string]int), from: make(map[string]int)}
	var d decoding
	d.r = r
	for row, err := range Instances.All(r, "") {
		if err != nil {
			return counted{}, err
		}
		key, counts, err := d.counts(row.Key)
		if err != nil {
			return counted{}, err
		}
		if counts {
			next.services[key.service]++
			if origin := key.origin(); origin != "" {
				next.imported++
				next.from[origin]++
			} else {
				next.instances++
			}
		}
	}
	c.last, c.read, c.at = next, revision, now
	return next, nil
}
