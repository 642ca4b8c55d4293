package routing

import (
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust/standing"
)

// Trust returns which trust domains can be verified. The node implements it.
type Trust interface {
	// State returns the state of a domain in the revision that r reads, at the present time. It is called for each
	// hint, once for each domain, from any goroutine, and must not block.
	State(r raftstore.Reader, td spiffeid.TrustDomain) (standing.State, error)
	// Prefixes lists what State reads, so that a watch can follow it.
	Prefixes() []raftstore.Prefix
}

const (
	// trustAge is how long a state is cached without a write: a bundle expires without one.
	trustAge = time.Second
	// maxDomains bounds the domains whose state is cached.
	maxDomains = 4096
)

// domainStates caches the states of trust domains. Looking them up would be the greatest part of the cost of a hint.
type domainStates struct {
	mu     sync.Mutex
	states map[spiffeid.TrustDomain]domainState
}

type domainState struct {
	state standing.State
	read  raftstore.Revision
	at    time.Time
}

func newDomainStates() *domainStates {
	return &domainStates{states: make(map[spiffeid.TrustDomain]domainState)}
}

// of returns the state of each domain.
func (d *domainStates) of(
	r raftstore.Reader, source Trust, domains []spiffeid.TrustDomain, now time.Time,
) ([]standing.State, error) {
	states := make([]standing.State, len(domains))
	revision := r.Revision()
	for i, td := range domains {
		d.mu.Lock()
		known, ok := d.states[td]
		d.mu.Unlock()
		if age := now.Sub(known.at); ok && known.read == revision && age >= 0 && age < trustAge {
			states[i] = known.state
			continue
		}
		state, err := source.State(r, td)
		if err != nil {
			return nil, fmt.Errorf("look up the trust in %s: %w", td.Name(), err)
		}
		states[i] = state
		d.mu.Lock()
		if !ok && len(d.states) >= maxDomains {
			clear(d.states)
		}
		if d.states[td].read <= revision {
			d.states[td] = domainState{state: state, read: revision, at: now}
		}
		d.mu.Unlock()
	}
	return states, nil
}
