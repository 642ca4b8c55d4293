package port

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// idleConn is a connection from an address.
type idleConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *idleConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 1))
}
func (c *idleConn) Close() error { c.closed = true; return nil }

func TestPlaces(t *testing.T) {
	const most, perHost = 6, 2
	type step struct {
		from    string
		greets  bool // the hello is received
		after   time.Duration
		refused string
		evicts  int // the step whose handshake gives way, from 1
	}
	for name, steps := range map[string][]step{
		"the oldest silent one of an address gives way": {
			{from: "192.0.2.1"}, {from: "192.0.2.2"}, {from: "192.0.2.1"}, {from: "192.0.2.1", evicts: 1},
		},
		"one that has begun is spared": {
			{from: "192.0.2.1", greets: true}, {from: "192.0.2.1"}, {from: "192.0.2.1", evicts: 2},
		},
		"until it stalls": {
			{from: "192.0.2.1", greets: true}, {from: "192.0.2.1", greets: true},
			{from: "192.0.2.1", after: stalledFor - 1, refused: "2 handshakes with 192.0.2.1 are under way, as many " +
				"as this port allows, and none of them stalls"},
			{from: "192.0.2.1", after: 1, evicts: 1},
		},
		"a /64 is one host": {
			{from: "2001:db8::1"}, {from: "2001:db8::2"}, {from: "2001:db8::3", evicts: 1},
		},
		"a /48 is one site": {
			{from: "2001:db8:0:1::1"}, {from: "2001:db8:0:2::1"}, {from: "2001:db8:0:3::1"}, {from: "2001:db8:0:4::1"},
			{from: "2001:db8:0:5::1", evicts: 1}, {from: "2001:db8:1::1"},
		},
		"many addresses replace the oldest silent one": {
			{from: "192.0.2.1", greets: true}, {from: "192.0.2.2"}, {from: "192.0.2.3"}, {from: "192.0.2.4"},
			{from: "192.0.2.5"}, {from: "192.0.2.6"}, {from: "192.0.2.7", evicts: 2},
		},
		"hosts of members have places of their own": {
			{from: "192.0.2.1", greets: true}, {from: "192.0.2.2", greets: true}, {from: "192.0.2.3", greets: true},
			{from: "192.0.2.4", greets: true}, {from: "192.0.2.5", greets: true}, {from: "192.0.2.6", greets: true},
			{from: "192.0.2.7", refused: "6 handshakes with any source are under way, as many as this port " +
				"allows, and none of them stalls"},
			{from: "198.51.100.1"}, {from: "198.51.100.1"},
			{from: "198.51.100.1", refused: "6 handshakes with any source are under way, as many as this port " +
				"allows, and none of them stalls"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(0, 0)
			s := newPlaces(most, perHost, func() time.Time { return now })
			s.forMembers = 2
			s.learn("eu-2", (&idleConn{from: "198.51.100.1"}).RemoteAddr())
			var conns []*idleConn
			var taken []*place
			for i, step := range steps {
				now = now.Add(step.after)
				c := &idleConn{from: step.from}
				p, err := s.enter(c)
				conns = append(conns, c)
				taken = append(taken, p)
				if step.refused != "" {
					require.EqualError(t, err, step.refused)
					continue
				}
				require.NoError(t, err, "step %d", i+1)
				if step.greets {
					p.greet()
				}
				if step.evicts > 0 {
					require.True(t, conns[step.evicts-1].closed, "step %d", i+1)
				}
				evicted := 0
				for _, c := range conns {
					if c.closed {
						evicted++
					}
				}
				require.Equal(t, min(step.evicts, 1), evicted, "step %d", i+1)
				for _, c := range conns {
					c.closed = false
				}
			}
			for _, p := range taken {
				if p != nil {
					p.leave()
					p.leave()
				}
			}
			require.Zero(t, s.taken.Len())
			require.Empty(t, s.sources)
			require.Zero(t, s.reserved)
			s.forget(func(string) bool { return false })
			require.Empty(t, s.members)
		})
	}
}
