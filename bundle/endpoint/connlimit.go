package endpoint

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// silentFor is for how long a connection may have brought no request before it gives its place to another one.
const silentFor = time.Second

// connLimiter are the connections that a server may have open. Pollers keep theirs from one poll to the next, which is
// why nobody waits for one to be closed: where all places are taken, first a connection gives way that has asked for
// nothing yet, then the one that has lain idle for longest. So whoever only holds places shuts nobody out. A connection
// with a request under way keeps its place, for as long as a request may take. It is safe for concurrent use.
type connLimiter struct {
	// most are open at a time, of which mostIdle lie idle.
	most, mostIdle   int
	now              func() time.Time
	refused, gaveWay prometheus.Counter
	mu               sync.Mutex
	open             int
	silent, idle     *list.List // of *placed, the longest first
}

func newConnLimiter(most int) *connLimiter {
	return &connLimiter{
		most: most, mostIdle: (most + 1) / 2, now: time.Now, silent: list.New(), idle: list.New(),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_bundle_endpoint_connections_refused_total",
			Help: "Connections closed at once because too many were open, each with a request under way.",
		}),
		gaveWay: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_bundle_endpoint_connections_gave_way_total",
			Help: "Connections that were idle, or had asked for nothing, and were closed to make room for others.",
		}),
	}
}

// limitedConn is a connection that has a place.
type limitedConn struct {
	net.Conn
	places *connLimiter
	// in is the list in which it stands at element, since when; nil: it is busy. gone says that it has no place any
	// more.
	in      *list.List
	element *list.Element
	since   time.Time
	gone    bool
}

// Close gives the place back.
func (c *limitedConn) Close() error {
	c.places.mu.Lock()
	c.leave()
	c.places.mu.Unlock()
	return c.Conn.Close()
}

// leave takes the connection out of everything. places.mu is held.
func (c *limitedConn) leave() {
	c.stand(nil)
	if !c.gone {
		c.gone = true
		c.places.open--
	}
}

// stand moves the connection to the end of a list; nil: out of all. places.mu is held.
func (c *limitedConn) stand(in *list.List) {
	if c.in != nil {
		c.in.Remove(c.element)
	}
	if c.in = in; in != nil {
		c.element, c.since = in.PushBack(c), c.places.now()
	}
}

// count is how many are open.
func (p *connLimiter) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// enter gives a connection a place; nil: there is none, and it was closed.
func (p *connLimiter) enter(conn net.Conn) *limitedConn {
	c := &limitedConn{Conn: conn, places: p}
	p.mu.Lock()
	var victim *limitedConn
	if p.open >= p.most {
		if victim = p.victim(); victim != nil {
			victim.leave()
		}
	}
	entered := p.open < p.most
	if entered {
		p.open++
		c.stand(p.silent)
	}
	p.mu.Unlock()
	p.close(victim)
	if !entered {
		p.refused.Inc()
		_ = conn.Close() // it was not used
		return nil
	}
	return c
}

// victim is who gives way to another one; nil: nobody. p.mu is held.
func (p *connLimiter) victim() *limitedConn {
	if e := p.silent.Front(); e != nil && p.now().Sub(e.Value.(*limitedConn).since) > silentFor {
		return e.Value.(*limitedConn)
	}
	if e := p.idle.Front(); e != nil {
		return e.Value.(*limitedConn)
	}
	return nil
}

// close ends a connection that gave way, if there is one.
func (p *connLimiter) close(victim *limitedConn) {
	if victim != nil {
		p.gaveWay.Inc()
		_ = victim.Conn.Close() // whoever serves it finds out
	}
}

// changed is told by net/http what a connection is doing now.
func (p *connLimiter) changed(conn net.Conn, state http.ConnState) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, ok := conn.(*limitedConn)
	if !ok {
		return
	}
	p.mu.Lock()
	var victim *limitedConn
	switch {
	case c.gone:
	case state == http.StateActive:
		c.stand(nil)
	case state == http.StateIdle:
		c.stand(p.idle)
		if p.idle.Len() > p.mostIdle {
			victim = p.idle.Front().Value.(*limitedConn)
			victim.leave()
		}
	}
	p.mu.Unlock()
	p.close(victim)
}

// limitedListener gives the connections of a listener their places.
type limitedListener struct {
	net.Listener
	places *connLimiter
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.places.enter(conn); c != nil {
			return c, nil
		}
	}
}
