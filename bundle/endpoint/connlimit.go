package endpoint

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/internal/origin"
)

// silentFor is the time within which a new connection has to send a request before it can be replaced.
const silentFor = time.Second

// One address may have an eighth of the connections, and minShare in any case: many clusters can poll through one
// gateway.
const (
	sharesOfAll = 8
	minShare    = 64
)

// connLimiter limits the open connections of a server. Pollers keep their connections from one poll to the next, so a
// new connection cannot wait for another one to be closed. When the limit is reached, it replaces one: first a
// connection that has not sent a request, then the one that has been idle for longest. So a client that only holds
// connections cannot lock out others. A connection with a request under way is never replaced. One address has a share
// of the connections, within which it replaces its own. It is safe for concurrent use.
type connLimiter struct {
	// most is the limit of open connections, and mostIdle that of idle ones. share is the limit for one host. A site
	// has twice as many.
	most, mostIdle   int
	share            int
	now              func() time.Time
	refused, evicted prometheus.Counter
	mu               sync.Mutex
	open             int
	origins          origin.Counts
	silent, idle     *list.List // of *limitedConn, the longest first
}

func newConnLimiter(most int) *connLimiter {
	return &connLimiter{
		most: most, mostIdle: (most + 1) / 2, share: max(minShare, most/sharesOfAll), origins: make(origin.Counts),
		now: time.Now, silent: list.New(), idle: list.New(),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_bundle_endpoint_connections_refused_total",
			Help: "Connections closed at once because too many were open, each with a request under way.",
		}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_bundle_endpoint_connections_evicted_total",
			Help: "Connections that were idle, or had sent no request, and were closed to make room for others.",
		}),
	}
}

// limitedConn is a connection that counts towards the limit.
type limitedConn struct {
	net.Conn
	limiter *connLimiter
	from    origin.Origin
	// in is the list that the connection is in, at element and since that time. It is nil while a request is under way.
	// gone is true once the connection no longer counts.
	in      *list.List
	element *list.Element
	since   time.Time
	gone    bool
}

// Close closes the connection, which no longer counts towards the limit.
func (c *limitedConn) Close() error {
	c.limiter.mu.Lock()
	c.leave()
	c.limiter.mu.Unlock()
	return c.Conn.Close()
}

// leave removes the connection from the limiter, whose mu is held.
func (c *limitedConn) leave() {
	c.stand(nil)
	if !c.gone {
		c.gone = true
		c.limiter.open--
		c.limiter.origins.Add(c.from, -1)
	}
}

// stand moves the connection to the end of a list, or out of all lists if in is nil. The limiter's mu is held.
func (c *limitedConn) stand(in *list.List) {
	if c.in != nil {
		c.in.Remove(c.element)
	}
	if c.in = in; in != nil {
		c.element, c.since = in.PushBack(c), c.limiter.now()
	}
}

// count returns the number of open connections.
func (l *connLimiter) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// enter admits a connection. It returns nil if a limit is reached, and then closes the connection.
func (l *connLimiter) enter(conn net.Conn) *limitedConn {
	c := &limitedConn{Conn: conn, limiter: l, from: origin.Of(conn.RemoteAddr())}
	l.mu.Lock()
	victim, entered := l.makeRoom(c.from)
	if entered {
		l.open++
		l.origins.Add(c.from, 1)
		c.stand(l.silent)
	}
	l.mu.Unlock()
	l.close(victim)
	if !entered {
		l.refused.Inc()
		_ = conn.Close() // it was not used
		return nil
	}
	return c
}

// makeRoom reports whether there is a place for a connection of an origin, and returns the connection that it replaces,
// which does not count any more. l.mu is held.
func (l *connLimiter) makeRoom(from origin.Origin) (victim *limitedConn, ok bool) {
	switch {
	case l.origins[from.Host] >= l.share:
		victim = l.victim(from.Host)
	case from.Site != "" && l.origins[from.Site] >= 2*l.share:
		victim = l.victim(from.Site)
	case l.open >= l.most:
		victim = l.victim("")
	default:
		return nil, true
	}
	if victim != nil {
		victim.leave()
	}
	return victim, victim != nil
}

// victim returns the connection of a host or a site to be replaced, or of any if it is empty, or nil. l.mu is held.
func (l *connLimiter) victim(of string) *limitedConn {
	oldest := func(in *list.List) *limitedConn {
		for e := in.Front(); e != nil; e = e.Next() {
			c := e.Value.(*limitedConn) //nolint:forcetypeassert // the lists have no others
			if of == "" || c.from.Host == of || c.from.Site == of {
				return c
			}
		}
		return nil
	}
	if c := oldest(l.silent); c != nil && l.now().Sub(c.since) > silentFor {
		return c
	}
	return oldest(l.idle)
}

// close closes a replaced connection, if there is one.
func (l *connLimiter) close(victim *limitedConn) {
	if victim != nil {
		l.evicted.Inc()
		_ = victim.Conn.Close() // the goroutine that serves it ends by an error
	}
}

// changed is called by net/http when the state of a connection changes.
func (l *connLimiter) changed(conn net.Conn, state http.ConnState) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, ok := conn.(*limitedConn)
	if !ok {
		return
	}
	l.mu.Lock()
	var victim *limitedConn
	switch {
	case c.gone:
	case state == http.StateActive:
		c.stand(nil)
	case state == http.StateIdle:
		c.stand(l.idle)
		if l.idle.Len() > l.mostIdle {
			victim = l.idle.Front().Value.(*limitedConn)
			victim.leave()
		}
	}
	l.mu.Unlock()
	l.close(victim)
}

// limitedListener limits the connections of a listener.
type limitedListener struct {
	net.Listener
	limiter *connLimiter
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.limiter.enter(conn); c != nil {
			return c, nil
		}
	}
}
