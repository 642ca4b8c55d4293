package port_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/port"
)

// TestStartingMemberVerifiesNobody: while a member is starting, every connection under h2 goes to the listener of
// starting members, as that of nobody, and counts towards the limits of callers without a grant. Once it serves, none
// does, and callers are verified.
func TestStartingMemberVerifiesNobody(t *testing.T) {
	var serves atomic.Bool
	s := serveClients(t, func(c *port.Config) { c.Starting = func() bool { return !serves.Load() } })
	s.privilege.Store(int32(port.Granted))
	svid := s.issue("/web")
	starting := s.port.Listener(port.Starting)
	const perHost = 64
	for n := range perHost + 8 {
		own := svid
		if n%2 == 0 {
			own = nil // it is not required
		}
		client, err := clientTLS(s.address, "h2", own)
		require.NoError(t, err)
		defer client.Close()
		server, err := starting.Accept()
		require.NoError(t, err)
		_, info, err := port.Credentials().ServerHandshake(server)
		require.NoError(t, err)
		caller := info.(port.AuthInfo).AccessCaller()
		_, identified := caller.SPIFFEID()
		require.False(t, identified)
	}
	s.eventually("holds no more than the share of a host", func() error {
		if n := gather(t, s.member, "entente_port_connections", "starting"); n != perHost {
			return errOpen(n)
		}
		return nil
	})
	require.Empty(t, s.accepted, "nothing reached the API")

	serves.Store(true)
	_, server := s.connect(svid)
	_, info, err := port.Credentials().ServerHandshake(server)
	require.NoError(t, err)
	id, identified := info.(port.AuthInfo).AccessCaller().SPIFFEID()
	require.True(t, identified)
	require.Equal(t, "/web", id.Path())
	requireClosed(t, refusal(clientTLS(s.address, "h2", nil)))
	s.refusedFor("h2", port.ReasonHandshake, 1)
}

// errOpen is how many connections are open, where others are expected.
type errOpen float64

func (n errOpen) Error() string { return fmt.Sprintf("%v are open", float64(n)) }
