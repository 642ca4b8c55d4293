package port_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/port"
)

// TestIdleConnectionsKeepNoMemberOut: while two addresses, one of them that of the members, hold 256 idle connections
// each to every member, a member that restarts finds its leader, its writes are committed, and another one joins.
func TestIdleConnectionsKeepNoMemberOut(t *testing.T) {
	const idle = 256
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	c := newMember(t, "eu-3").joined(a)
	flood := func(m *member) {
		for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			for range idle {
				conn, err := d.DialContext(t.Context(), "tcp", m.address)
				require.NoError(t, err)
				t.Cleanup(func() { _ = conn.Close() })
			}
		}
	}
	flood(a) // while each member has its port: a connection could take the port of one that is stopped
	flood(b)
	c.stop()
	revision := a.write()
	began := time.Now()
	c.start()
	flood(c)
	c.eventually("has what was written meanwhile", c.reached(revision))
	c.eventually("hears from its leader", func() error {
		if last := c.manager.LastContact(); !last.After(began) {
			return fmt.Errorf("last contact at %s", last)
		}
		return nil
	})
	c.write()
	newMember(t, "eu-4").joined(c)
}

// A connection whose streams are not read is closed, also that of a caller with a grant.
func TestUnreadConnectionsAreClosed(t *testing.T) {
	s := serveClients(t, func(*port.Config) {})
	s.privilege.Store(int32(port.Granted))
	client, server := s.connect(s.issue("/web"))
	_, info, err := port.Credentials().ServerHandshake(server)
	require.NoError(t, err)
	unreadable, ok := info.(port.AuthInfo)
	require.True(t, ok)
	unreadable.Unread()
	requireClosed(t, refusal(client, nil))
	require.InDelta(t, 1, gather(t, s.member, "entente_port_closed_total", "h2"), 0)
}
