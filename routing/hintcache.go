package routing

import (
	"sync"
	"time"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// maxHints bounds the cached hints: some thousand services, each for the callers of a few zones.
const maxHints = 8192

// hintCache caches hints until something that they depend on changes.
type hintCache struct {
	planner *Planner

	mu    sync.RWMutex
	hints map[hintKey]*cachedHint
}

type hintKey struct {
	service string
	caller  plan.Locality
	scope   string // its key
}

// cachedHint is a hint with everything that it depends on. The hint is shared and must not be changed.
type cachedHint struct {
	snapshot snapshot
	hint     *ententev1.Hint
	result   string // the label under which it is counted
	// read and at are the revision and the time up to which the hint is known to be current.
	read raftstore.Revision
	at   time.Time
}

func newHintCache(p *Planner) *hintCache {
	return &hintCache{planner: p, hints: make(map[hintKey]*cachedHint)}
}

// get returns the hint for callers with a scope. Instances that they do not see are left out without a mention, as in
// xDS.
func (c *hintCache) get(
	r raftstore.Reader, service string, caller plan.Locality, scope access.Scope,
) (*cachedHint, error) {
	key, now := hintKey{service, caller, scope.Key()}, c.planner.now()
	c.mu.RLock()
	known := c.hints[key]
	c.mu.RUnlock()
	if known != nil && known.read == r.Revision() {
		if age := now.Sub(known.at); age >= 0 && age < trustAge {
			return known, nil
		}
	}
	s, err := c.planner.snapshot(r, service, scope.Includes)
	if err != nil {
		return nil, err
	}
	next := &cachedHint{snapshot: s, read: r.Revision(), at: now}
	if known != nil && known.snapshot.sameAs(s) {
		next.result = known.result
		next.hint = withRevision(known.hint, uint64(r.Revision()))
	} else {
		planned := s.arrangement().Plan(caller)
		next.hint, next.result = planned.Hint(service, caller, uint64(r.Revision())), resultOf(planned)
	}
	if len(s.service.Instances) > 0 {
		c.put(key, next)
	}
	return next, nil
}

func (c *hintCache) put(key hintKey, h *cachedHint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.hints[key]
	if known != nil && known.read > h.read {
		return
	}
	if known == nil && len(c.hints) >= maxHints {
		clear(c.hints)
	}
	c.hints[key] = h
}
