package federation

import (
	"sync"
)

// changes carries word of what changed from the goroutines that follow the store to the scheduler. It holds a set, so that nobody
// waits for the scheduler, and nothing grows while it is busy.
type changes struct {
	signal chan struct{}

	mu      sync.Mutex
	names   map[string]struct{}
	all     bool
	members []string
}

func newChanges() *changes {
	return &changes{signal: make(chan struct{}, 1), names: make(map[string]struct{})}
}

// relationships says that these changed.
func (c *changes) relationships(names []string) {
	if len(names) == 0 {
		return
	}
	c.mu.Lock()
	for _, name := range names {
		c.names[name] = struct{}{}
	}
	c.mu.Unlock()
	c.wake()
}

// everything says that the catalog was read anew.
func (c *changes) everything() {
	c.mu.Lock()
	c.all = true
	c.mu.Unlock()
	c.wake()
}

// alive says who the members are now.
func (c *changes) alive(members []string) {
	c.mu.Lock()
	c.members, c.all = members, true
	c.mu.Unlock()
	c.wake()
}

func (c *changes) wake() {
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// take returns what changed since the last call, and the members as they are.
func (c *changes) take() (names []string, members []string, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.names {
		names = append(names, name)
	}
	all = c.all
	clear(c.names)
	c.all = false
	return names, c.members, all
}
