package bundle

import (
	"crypto/tls"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// keptIdle is for how long a connection is kept that nobody uses: most servers close theirs after a minute, this one's too.
	keptIdle = time.Minute
	// keptLife is for how long one is used at all, so that a name that moved and a certificate that was replaced are noticed.
	keptLife = 10 * time.Minute
)

// Connections keeps the connections to some endpoints open from one fetch to the next, for those that are asked so often that a handshake
// each time costs more than it is worth. What a kept connection's certificate is good for is decided anew at each fetch, by the bundle and
// the time of that fetch. It is safe for concurrent use.
type Connections struct {
	most int

	mu     sync.Mutex
	closed bool
	idle   map[string]*connection
}

// connection is a transport with one connection at most, that of one endpoint. Who took it has it alone.
type connection struct {
	transport *http.Transport
	// client is whose fetch is under way: should the connection have ended, the next one is verified by what that one goes by.
	client atomic.Pointer[Client]
	since  time.Time
	state  *tls.ConnectionState
}

// NewConnections keeps at most so many. When they are that many, those of further endpoints are not kept.
func NewConnections(most int) *Connections {
	return &Connections{most: most, idle: make(map[string]*connection)}
}

// Close closes all, and keeps none from now on.
func (k *Connections) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for key, c := range k.idle {
		delete(k.idle, key)
		c.transport.CloseIdleConnections()
	}
}

// take returns what fetches of c are to go over, which is a kept connection if that is still good for them.
func (k *Connections) take(key string, c *Client, e Endpoint) *connection {
	k.mu.Lock()
	kept := k.idle[key]
	delete(k.idle, key)
	k.mu.Unlock()
	if kept != nil {
		if c.stillGood(e, kept) {
			kept.client.Store(c)
			return kept
		}
		kept.transport.CloseIdleConnections()
	}
	fresh := &connection{since: c.config.Now()}
	fresh.client.Store(c)
	fresh.transport = c.transport(e)
	fresh.transport.DisableKeepAlives, fresh.transport.IdleConnTimeout, fresh.transport.MaxIdleConns = false, keptIdle, 1
	if e.profile == HTTPSSPIFFE {
		fresh.transport.TLSClientConfig.VerifyConnection = func(state tls.ConnectionState) error {
			return fresh.client.Load().verify(e, state.PeerCertificates)
		}
	}
	return fresh
}

// give takes a connection back after a fetch that went well; its transport forgets it when it has been idle for too long.
func (k *Connections) give(key string, c *connection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweep(c.client.Load().config.Now())
	if _, another := k.idle[key]; another || k.closed || len(k.idle) >= k.most {
		c.transport.CloseIdleConnections()
		return
	}
	k.idle[key] = c
}

// sweep drops what has lived for too long, when there is no room. k.mu is held.
func (k *Connections) sweep(now time.Time) {
	if len(k.idle) < k.most {
		return
	}
	for key, c := range k.idle {
		if old(c, now) {
			delete(k.idle, key)
			c.transport.CloseIdleConnections()
		}
	}
}

// old reports whether a connection has lived for too long. A clock that was set back makes it so.
func old(c *connection, now time.Time) bool {
	age := now.Sub(c.since)
	return age < 0 || age > keptLife
}

// stillGood decides whether a handshake with the certificates of a kept connection would succeed now.
func (c *Client) stillGood(e Endpoint, kept *connection) bool {
	now := c.config.Now()
	switch {
	case kept.state == nil || old(kept, now):
		return false
	case e.profile == HTTPSSPIFFE:
		return c.verify(e, kept.state.PeerCertificates) == nil
	case len(kept.state.VerifiedChains) == 0:
		return false
	}
	for _, cert := range kept.state.VerifiedChains[0] {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return false
		}
	}
	return true
}
