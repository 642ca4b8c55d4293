package port

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"
)

// Conn is a connection whose other end was verified, and is verified again by [Port.Recheck].
type Conn struct {
	*tls.Conn
	caller   Caller
	outgoing bool
	// dialed is the address that an outgoing connection was made to.
	dialed string
	// chain is what the caller presented under h2.
	chain []*x509.Certificate

	once    sync.Once
	release func()
	// end closes the connection when its time is over; nil if it has no end.
	end *time.Timer
}

// Caller returns who is at the other end.
func (c *Conn) Caller() Caller { return c.caller }

// Binding is a value that both ends of the connection derive from its TLS session, and nobody else can: what is signed together with
// it counts in this session and in no other (RFC 9266 uses TLS's exporters so).
func (c *Conn) Binding() ([]byte, error) {
	const label, bytes = "EXPORTER-entente-join", 32
	state := c.ConnectionState()
	return state.ExportKeyingMaterial(label, nil, bytes)
}

// Close closes the connection and forgets it. It may be called more than once.
func (c *Conn) Close() error {
	c.once.Do(func() {
		if c.end != nil {
			c.end.Stop()
		}
		if c.release != nil {
			c.release()
		}
	})
	return c.Conn.Close()
}

// cut closes the connection without the goodbye that Close says, which waits for a peer that does not read.
func (c *Conn) cut() {
	_ = c.NetConn().Close() // it is being thrown away
	_ = c.Close()           // as above
}
