package registry

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// maxCached bounds the services whose instances are cached.
const maxCached = 16384

// Catalog caches the decoded instances of services until something about them changes. Without it, decoding would be
// most of the cost of a hint. It is safe for concurrent use.
type Catalog struct {
	counts counts

	mu       sync.RWMutex
	services map[string]cachedService
}

// cachedService is a service with the revisions that it was read at. The revision of the leases is common to all
// services.
type cachedService struct {
	*Service
	read serviceRevisions
}

// Service holds the instances of a service that count. It is immutable apart from the cache of arrangements. As long as
// nothing changes, the catalog returns the same pointer.
type Service struct {
	// Instances are in order of address. Instances that share an address are in order of precedence.
	Instances []Instance
	// Domains are the trust domains of the instances, and DomainOf has for each instance the index of its domain.
	Domains  []spiffeid.TrustDomain
	DomainOf []int
	// Arrangements caches the arrangements of the instances.
	Arrangements plan.Arrangements

	leases map[set]setState
	// disowned are the registered instances that do not count because the service has owners and none covers their IDs.
	disowned []Instance
}

type serviceRevisions struct{ instances, sets, leases, imports, owners raftstore.Revision }

func newCatalog(now func() time.Time) *Catalog {
	return &Catalog{counts: counts{now: now}, services: make(map[string]cachedService)}
}

// Service returns a service in the revision that r reads. The result is shared and must not be changed.
func (c *Catalog) Service(r raftstore.Reader, name string) (*Service, error) {
	prefix := servicePrefix(name)
	now := serviceRevisions{
		instances: Instances.PrefixRevision(r, prefix), sets: Sets.PrefixRevision(r, prefix),
		leases: Leases.PrefixRevision(r, ""), imports: importsRevision(r, prefix),
		owners: grant.OwnersRevision(r, name),
	}
	c.mu.RLock()
	known, ok := c.services[name]
	c.mu.RUnlock()
	if ok && known.read == now {
		return known.Service, nil
	}
	if ok && known.read.sameButLeases(now) {
		// Only leases have changed, perhaps those of other services.
		same, err := known.sameLeases(r)
		if err != nil {
			return nil, err
		}
		if same {
			c.put(name, cachedService{known.Service, now})
			return known.Service, nil
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
	c.put(name, cachedService{s, now})
	return s, nil
}

func (c *Catalog) put(name string, s cachedService) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.services[name]
	switch {
	case ok && known.read.after(s.read):
		// A slower reader of an older state.
	case len(s.Instances)+len(s.disowned) == 0:
		// Callers may request any name; only services that exist are cached.
		delete(c.services, name)
	default:
		if !ok && len(c.services) >= maxCached {
			clear(c.services)
		}
		c.services[name] = s
	}
}

// sameButLeases reports whether nothing but leases has changed.
func (s serviceRevisions) sameButLeases(o serviceRevisions) bool {
	s.leases = o.leases
	return s == o
}

// after reports whether a part of s is newer than o.
func (s serviceRevisions) after(o serviceRevisions) bool {
	return s.instances > o.instances || s.sets > o.sets || s.leases > o.leases || s.imports > o.imports ||
		s.owners > o.owners
}

func newService(r raftstore.Reader, list []Instance) (*Service, error) {
	var disowned []Instance
	list = slices.DeleteFunc(list, func(i Instance) bool {
		if i.disowned {
			disowned = append(disowned, i)
		}
		return i.disowned
	})
	slices.SortFunc(list, comparePrecedence)
	for i := 1; i < len(list); i++ {
		list[i].Outranked = list[i].Origin == "" && list[i].Address == list[i-1].Address
	}
	s := &Service{
		Instances: list, DomainOf: make([]int, len(list)), leases: make(map[set]setState), disowned: disowned,
	}
	number := make(map[spiffeid.TrustDomain]int)
	for i, instance := range list {
		td := instance.ID.TrustDomain()
		n, known := number[td]
		if !known {
			n = len(s.Domains)
			number[td] = n
			s.Domains = append(s.Domains, td)
		}
		s.DomainOf[i] = n
		of := set{instance.Service, instance.Lease}
		if _, known := s.leases[of]; instance.Lease != "" && instance.Origin == "" && !known {
			state, err := leaseState(r, of)
			if err != nil {
				return nil, err
			}
			s.leases[of] = state
		}
	}
	return s, nil
}

// comparePrecedence orders instances of one service by address. Those that share an address are ordered by which of
// them counts: a registration precedes an import, an instance whose lease has run out follows all others, and an older
// registration precedes a newer one. So a set that is uploaded takes no address from its holder, and the set of a
// control plane that lost its lease counts when that has run out.
func comparePrecedence(a, b Instance) int {
	return cmp.Or(
		a.Address.Compare(b.Address), strings.Compare(a.Origin, b.Origin), compareLeaseExpired(a, b),
		a.Registered.Compare(b.Registered), cmp.Compare(a.Revision, b.Revision), strings.Compare(a.Lease, b.Lease),
	)
}

func compareLeaseExpired(a, b Instance) int {
	switch {
	case a.LeaseExpired == b.LeaseExpired:
		return 0
	case b.LeaseExpired:
		return -1
	}
	return 1
}

// sameLeases reports whether the leases of the instances are in the same state as before. A lease that is gone does not
// return, because IDs are random.
func (s *Service) sameLeases(r raftstore.Reader) (bool, error) {
	for of, was := range s.leases {
		state, err := leaseState(r, of)
		if err != nil || state != was {
			return false, err
		}
	}
	return true, nil
}

// Counts is how many instances are stored, including those that leases which are gone have left behind.
type Counts struct {
	// Instances is the number of instances registered here.
	Instances int
	// Services has the number of instances of each service, imported ones included.
	Services map[string]int
	// Imported is the number of imported instances.
	Imported int
}

// countEvery is the greatest age of a count. What is registered within it can exceed a bound.
const countEvery = time.Second

// counts caches a [Counts], because counting reads all rows.
type counts struct {
	now func() time.Time

	mu   sync.Mutex
	last Counts
	read raftstore.Revision
	at   time.Time
}

// Counts counts the stored instances. The result may be up to a second old. It is shared and must not be changed.
func (c *Catalog) Counts(r raftstore.Reader) (Counts, error) { return c.counts.get(r) }

func (c *counts) get(r raftstore.Reader) (Counts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	revision := max(Instances.PrefixRevision(r, ""), Sets.PrefixRevision(r, ""))
	if c.last.Services != nil && (c.read >= revision || now.Sub(c.at) < countEvery) {
		return c.last, nil
	}
	next := Counts{Services: make(map[string]int)}
	d := decoder{r: r}
	for row, err := range Instances.All(r, "") {
		if err != nil {
			return Counts{}, err
		}
		key, counts, err := d.key(row.Key)
		if err != nil {
			return Counts{}, err
		}
		if !counts {
			continue
		}
		next.Services[key.service]++
		if key.origin() != "" {
			next.Imported++
		} else {
			next.Instances++
		}
	}
	c.last, c.read, c.at = next, revision, now
	return next, nil
}
