package endpoint

import (
	"sync"
	"time"
)

const (
	// keptIdle is the time after which an unused connection is closed.
	keptIdle = 15 * time.Minute
	// keptLife is the longest life of a connection, so that a moved name and a replaced certificate are noticed.
	keptLife = time.Hour
	// keptSweep is the interval at which expired connections are looked for.
	keptSweep = time.Minute
)

// Connections keeps connections to endpoints open from one fetch to the next, each of some 11 KiB at this end. Each
// fetch verifies the certificate of a kept connection again, by the bundle and the time of that fetch. It is safe for
// concurrent use.
type Connections struct {
	most int

	mu     sync.Mutex
	closed bool
	idle   map[string]*connection
	swept  time.Time
}

// NewConnections keeps at most that many connections. The connections to further endpoints are not kept.
func NewConnections(most int) *Connections {
	return &Connections{most: most, idle: make(map[string]*connection)}
}

// Close closes all connections, and keeps none from then on.
func (k *Connections) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for key, c := range k.idle {
		delete(k.idle, key)
		c.close()
	}
}

// Len returns the number of kept connections.
func (k *Connections) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.idle)
}

// get removes and returns the kept connection, or nil.
func (k *Connections) get(key string) *connection {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.idle[key]
	delete(k.idle, key)
	return c
}

// put keeps a connection after a successful fetch.
func (k *Connections) put(key string, c *connection, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweep(now)
	if _, another := k.idle[key]; another || k.closed || len(k.idle) >= k.most {
		c.close()
		return
	}
	c.used = now
	k.idle[key] = c
}

// sweep closes expired connections. k.mu is held.
func (k *Connections) sweep(now time.Time) {
	if age := now.Sub(k.swept); age >= 0 && age < keptSweep {
		return
	}
	k.swept = now
	for key, c := range k.idle {
		if c.old(now) {
			delete(k.idle, key)
			c.close()
		}
	}
}

// old reports whether a connection has lived or been idle for too long, or a clock was set back.
func (n *connection) old(now time.Time) bool {
	age, idle := now.Sub(n.since), now.Sub(n.used)
	return age < 0 || age > keptLife || idle < 0 || idle > keptIdle
}

// kept returns the kept connection of the endpoint if a handshake with its certificates would succeed now, or nil.
func (c *Client) kept(e Remote) *connection {
	if c.config.Kept == nil {
		return nil
	}
	kept := c.config.Kept.get(c.config.KeptAs)
	if kept == nil {
		return nil
	}
	if !c.stillGood(e, kept) {
		kept.close()
		return nil
	}
	return kept
}

func (c *Client) stillGood(e Remote, kept *connection) bool {
	now := c.config.Now()
	switch {
	case kept.old(now) || now.After(kept.until):
		return false
	case e.profile != HTTPSSPIFFE || c.config.Version > 0 && c.config.Version == kept.version:
		return true
	}
	until, err := c.verify(e, e.url.Hostname(), kept.chain())
	if err != nil {
		return false
	}
	kept.until, kept.version = until, c.config.Version
	return true
}
