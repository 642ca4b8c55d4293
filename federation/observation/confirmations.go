package observation

import (
	"sync"
	"time"
)

// Confirmations limits how often a confirmation of a stored bundle is recorded, by trust domain. A peer cannot make it
// grow, because it holds only domains of relationships.
type Confirmations struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// NewConfirmations returns an empty one.
func NewConfirmations() *Confirmations { return &Confirmations{last: make(map[string]time.Time)} }

// Due reports whether a confirmation is to be recorded, and counts it as recorded. It is also due if the clock was set
// back.
func (c *Confirmations) Due(name string, now time.Time, every time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.last[name]); age >= 0 && age < every {
		return false
	}
	c.last[name] = now
	return true
}

// Forget removes a domain.
func (c *Confirmations) Forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.last, name)
}
