package routing

import (
	"sync"

	"github.com/ententehq/entente/raftstore"
)

// maxCached bounds the services whose instances are kept decoded.
const maxCached = 16384

// catalog keeps the instances of the services that were asked for, decoded, for as long as nothing changed below them.
// A hint then costs no decoding, which would be most of it.
type catalog struct {
	mu       sync.RWMutex
	services map[string]cached
}

type cached struct {
	revision  raftstore.Revision
	instances []Instance
}

func newCatalog() *catalog { return &catalog{services: make(map[string]cached)} }

// instances returns a service's instances in order of their keys, in the revision that r reads. What it returns is
// shared; do not change it.
func (c *catalog) instances(r raftstore.Reader, service string) ([]Instance, error) {
	revision := Instances.PrefixRevision(r, servicePrefix(service))
	c.mu.RLock()
	known, ok := c.services[service]
	c.mu.RUnlock()
	if ok && known.revision == revision {
		return known.instances, nil
	}
	list, err := decode(r, servicePrefix(service))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok = c.services[service]
	switch {
	case len(list) == 0:
		// Callers can ask for any name; only those that exist are kept.
		delete(c.services, service)
	case !ok || known.revision < revision:
		if len(c.services) >= maxCached {
			clear(c.services)
		}
		c.services[service] = cached{revision: revision, instances: list}
	}
	return list, nil
}

func decode(r raftstore.Reader, prefix string) ([]Instance, error) {
	var list []Instance
	for row, err := range Instances.All(r, prefix) {
		if err != nil {
			return nil, err
		}
		i, err := fromRow(row)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return list, nil
}
