package routing

import "sync"

// maxArrangements bounds the arrangements that are kept of one service: for callers of a few sights, before and after a change of trust.
const maxArrangements = 8

// arrangements keeps those of one state of a service.
type arrangements struct {
	mu   sync.Mutex
	kept map[arrangementKey]*Arrangement
}

// arrangementKey names what besides the service an arrangement is made of.
type arrangementKey struct {
	policy *Policy
	states string // a byte a domain
}

func stateBytes(states []TrustState) []byte {
	out := make([]byte, len(states))
	for i, s := range states {
		out[i] = byte(s)
	}
	return out
}

// of returns an arrangement, and makes it where none is kept. Those who ask at once wait for the one who makes it.
func (a *arrangements) of(key arrangementKey, arrange func() *Arrangement) *Arrangement {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.kept[key]; known != nil {
		return known
	}
	if a.kept == nil || len(a.kept) >= maxArrangements {
		a.kept = make(map[arrangementKey]*Arrangement, 1)
	}
	made := arrange()
	a.kept[key] = made
	return made
}
