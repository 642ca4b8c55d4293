package grant

import (
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/raftstore"
)

// maxCached bounds the SPIFFE IDs of a [Cache].
const maxCached = 4096

// Cache keeps the decoded grants of SPIFFE IDs, those without a grant included: who calls often, and whose SVIDs are
// issued often, has the same ones for days. The zero value is empty. It can be used from any goroutine.
type Cache struct {
	mu sync.Mutex
	of map[spiffeid.ID]cached
}

// cached are the grants of a caller: those that were read at revision read, and that were last changed at changed.
type cached struct {
	read, changed raftstore.Revision
	grants        []Grant
}

// Of returns the grants of a SPIFFE ID in a state of this member, as [Of] does. The caller must not change them.
func (c *Cache) Of(v *raftstore.View, id spiffeid.ID) ([]Grant, error) {
	now := v.Revision()
	c.mu.Lock()
	known, found := c.of[id]
	c.mu.Unlock()
	if found && known.read == now {
		return known.grants, nil
	}
	changed := grants.PrefixRevision(v, callerKeyPrefix(id))
	if !found || known.changed != changed {
		of, err := Of(v, id)
		if err != nil {
			return nil, err
		}
		known = cached{changed: changed, grants: of}
	}
	known.read = now
	c.keep(id, known)
	return known.grants, nil
}

func (c *Cache) keep(id spiffeid.ID, k cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil || len(c.of) >= maxCached {
		c.of = make(map[spiffeid.ID]cached)
	}
	c.of[id] = k
}
