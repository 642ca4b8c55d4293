package plan

import (
	"sync"

	"github.com/ententehq/entente/trust/standing"
)

// maxArrangements bounds the cached arrangements of one service. A few are needed at once: one for each set of visible
// trust domains, before and after a change of trust.
const maxArrangements = 8

// Arrangements caches the arrangements of one state of a service. The zero value is empty and ready to use.
type Arrangements struct {
	mu     sync.Mutex
	cached map[arrangementKey]*Arrangement
}

// arrangementKey is what an arrangement depends on besides the service itself.
type arrangementKey struct {
	policy *Policy
	states string // one byte for each trust domain
}

// Get returns the arrangement of endpoints under a policy and the trust states of their domains. It calls endpoints
// only if that arrangement is not cached; concurrent callers wait for the one that builds it.
func (a *Arrangements) Get(policy *Policy, states []standing.State, endpoints func() []Endpoint) *Arrangement {
	key := arrangementKey{policy, stateBytes(states)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if cached := a.cached[key]; cached != nil {
		return cached
	}
	if a.cached == nil || len(a.cached) >= maxArrangements {
		a.cached = make(map[arrangementKey]*Arrangement, 1)
	}
	built := policy.Arrange(endpoints())
	a.cached[key] = built
	return built
}

func stateBytes(states []standing.State) string {
	out := make([]byte, len(states))
	for i, s := range states {
		out[i] = byte(s)
	}
	return string(out)
}
