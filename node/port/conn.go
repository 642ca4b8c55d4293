package port

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Conn is a connection whose other end was verified. [Port.Recheck] verifies it again.
type Conn struct {
	*tls.Conn
	caller   Caller
	outgoing bool
	// dialed is the address of an outgoing connection.
	dialed string
	// port is that of an incoming connection. The lock of its connections guards the fields up to refusals.
	port *Port
	// class, counted and since belong to the limiter of incoming connections.
	class   class
	counted bool
	since   time.Time
	// refusals limits the refused calls of a caller without a grant. It is nil before the first.
	refusals *rate.Limiter
	// chain is the certificate chain that the caller presented under h2.
	chain []*x509.Certificate

	once    sync.Once
	release func()
	// end closes the connection at the end of its lifetime. It is nil if there is none.
	end *time.Timer
}

// Caller returns the other end.
func (c *Conn) Caller() Caller { return c.caller }

// RaftPeer returns the member at the other end, and the identity key that it has proved.
func (c *Conn) RaftPeer() (memberID string, identity [32]byte) {
	return c.caller.MemberID, c.caller.Identity
}

// Binding returns a value that only the two ends of the connection can derive, from its TLS session. A signature over
// it is valid in this session only. RFC 9266 uses TLS exporters in the same way.
func (c *Conn) Binding() ([]byte, error) {
	const label, bytes = "EXPORTER-entente-join", 32
	state := c.ConnectionState()
	return state.ExportKeyingMaterial(label, nil, bytes)
}

// Close closes the connection, and removes it from its port. It may be called more than once.
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

// cut closes the connection without the closing alert of Close, which can block if the peer does not read.
func (c *Conn) cut() {
	_ = c.NetConn().Close() // nothing depends on the outcome
	_ = c.Close()           // as above
}
