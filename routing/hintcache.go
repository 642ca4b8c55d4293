package routing

import (
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/trust"
)

const (
	// maxHints bounds the hints that are kept: some thousand services for the callers of a few zones each.
	maxHints = 8192
	// trustAge is how long a state of trust is believed although nothing was written: a bundle expires without a write.
	trustAge = time.Second
	// maxDomains bounds the domains whose state is kept.
	maxDomains = 4096
)

// domainStates keeps the states of trust domains, which cost more to look up than the rest of a hint to compute.
type domainStates struct {
	mu     sync.Mutex
	states map[spiffeid.TrustDomain]domainState
}

type domainState struct {
	state trust.State
	read  raftstore.Revision
	at    time.Time
}

func newDomainStates() *domainStates {
	return &domainStates{states: make(map[spiffeid.TrustDomain]domainState)}
}

// of returns the state of each domain.
func (d *domainStates) of(r raftstore.Reader, trusted Trust, domains []spiffeid.TrustDomain, now time.Time) ([]trust.State, error) {
	out := make([]trust.State, len(domains))
	revision := r.Revision()
	for i, td := range domains {
		d.mu.Lock()
		known, ok := d.states[td]
		d.mu.Unlock()
		if age := now.Sub(known.at); ok && known.read == revision && age >= 0 && age < trustAge {
			out[i] = known.state
			continue
		}
		state, err := trusted.State(r, td)
		if err != nil {
			return nil, fmt.Errorf("look up the trust in %s: %w", td.Name(), err)
		}
		out[i] = state
		d.mu.Lock()
		if !ok && len(d.states) >= maxDomains {
			clear(d.states)
		}
		if d.states[td].read <= revision {
			d.states[td] = domainState{state: state, read: revision, at: now}
		}
		d.mu.Unlock()
	}
	return out, nil
}

// hintCache keeps hints for as long as nothing that they are made of changes.
type hintCache struct {
	mu    sync.RWMutex
	hints map[hintKey]*cachedHint
}

type hintKey struct {
	service string
	caller  plan.Locality
	sight   string // its key
}

// cachedHint is a hint with all that it was made of. The hint is shared; nobody changes it.
type cachedHint struct {
	scene  scene
	hint   *ententev1.Hint
	result string // as it is counted
	// read and at say until which revision, and when, all of that was known to be so.
	read raftstore.Revision
	at   time.Time
}

func newHintCache() *hintCache { return &hintCache{hints: make(map[hintKey]*cachedHint)} }

// everything is the sight of those from whom nothing is hidden.
var everything = access.NewScope("everything", func(spiffeid.TrustDomain) bool { return true })

// Hint returns the hint for callers in a locality who see everything, in the revision that r reads. It is shared; do not change it.
func (m *Manager) Hint(r raftstore.Reader, service string, caller plan.Locality) (*ententev1.Hint, error) {
	h, err := m.cachedHint(r, service, caller, everything)
	if err != nil {
		return nil, err
	}
	return h.hint, nil
}

// cachedHint returns the hint for callers of a sight. Instances that they do not see are left out without a word, as over xDS.
func (m *Manager) cachedHint(r raftstore.Reader, service string, caller plan.Locality, sight access.Scope) (*cachedHint, error) {
	key, now := hintKey{service, caller, sight.Key()}, m.now()
	m.hints.mu.RLock()
	known := m.hints.hints[key]
	m.hints.mu.RUnlock()
	if known != nil && known.read == r.Revision() {
		if age := now.Sub(known.at); age >= 0 && age < trustAge {
			return known, nil
		}
	}
	s, err := m.scene(r, service, sight.Includes)
	if err != nil {
		return nil, err
	}
	next := &cachedHint{scene: s, read: r.Revision(), at: now}
	if known != nil && known.scene.sameAs(s) {
		// All that changed is how new it is.
		next.result = known.result
		next.hint = &ententev1.Hint{
			Service: known.hint.GetService(), Locality: known.hint.GetLocality(), Revision: uint64(r.Revision()),
			Priorities: known.hint.GetPriorities(), Excluded: known.hint.GetExcluded(), Reason: known.hint.GetReason(),
		}
	} else {
		planned := s.arranged().Plan(caller)
		next.hint, next.result = planned.Hint(service, caller, uint64(r.Revision())), resultOf(planned)
	}
	if len(s.service.instances) > 0 {
		m.hints.keep(key, next)
	}
	return next, nil
}

func (c *hintCache) keep(key hintKey, h *cachedHint) {
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
