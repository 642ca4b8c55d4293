package endpoint

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// closing is a connection that records whether it was closed.
type closing struct {
	net.Conn
	from   string // or the zero address
	closed bool
}

func (c *closing) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.from)} }

func (c *closing) Close() error { c.closed = true; return nil }

// TestConnLimiter: a connection without a request is replaced first, then the one that was idle for longest, and never
// one with a request under way.
func TestConnLimiter(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := newConnLimiter(4)
	p.now = func() time.Time { now = now.Add(time.Millisecond); return now }
	enter := func(states ...http.ConnState) *closing {
		t.Helper()
		raw := &closing{}
		if c := p.enter(raw); c != nil {
			for _, s := range states {
				p.changed(c, s)
			}
		} else {
			require.True(t, raw.closed)
		}
		return raw
	}
	busy := []*closing{enter(http.StateActive), enter(http.StateActive)}
	first, second := enter(http.StateActive, http.StateIdle), enter(http.StateActive, http.StateIdle)
	require.Equal(t, 4, p.count())

	silent := enter() // which has not had the time to send a request
	require.True(t, first.closed, "the one that lay idle for longest")
	require.False(t, second.closed)
	now = now.Add(2 * silentFor)
	third := enter(http.StateActive, http.StateIdle)
	require.True(t, silent.closed, "a connection without a request is closed before one with a request")
	require.False(t, second.closed)
	require.Equal(t, 3., testutil.ToFloat64(p.evicted)+1)

	busy = append(busy, enter(http.StateActive), enter(http.StateActive))
	require.True(t, second.closed)
	require.True(t, third.closed)
	require.True(t, enter().closed, "all are served")
	require.Equal(t, 1., testutil.ToFloat64(p.refused))
	for _, b := range busy {
		require.False(t, b.closed)
	}
	require.Equal(t, 4, p.count())
}

// TestIdleConnectionsAreHalfOfAllAtMost, so that what they take is bounded, and each place is given back once.
func TestIdleConnectionsAreHalfOfAllAtMost(t *testing.T) {
	p := newConnLimiter(4)
	var all []*limitedConn
	for range 4 {
		c := p.enter(&closing{})
		p.changed(c, http.StateActive)
		all = append(all, c)
	}
	for _, c := range all {
		p.changed(c, http.StateIdle)
	}
	require.Equal(t, 2, p.count())
	require.Equal(t, 2, p.idle.Len())
	for _, c := range all { // as the server does with each, also with those that gave way
		require.NoError(t, c.Close())
		require.NoError(t, c.Close())
		p.changed(c, http.StateClosed)
		p.changed(c, http.StateIdle)
	}
	require.Zero(t, p.count())
	require.Zero(t, p.idle.Len()+p.silent.Len())
}

// TestOneAddressHasAShare: connections with requests under way from a few addresses leave places to all others.
func TestOneAddressHasAShare(t *testing.T) {
	for name, c := range map[string]struct {
		from   func(i int) string
		places int // of those with requests under way
	}{
		"an IPv4 address": {func(int) string { return "192.0.2.1" }, 512},
		"a /64":           {func(i int) string { return fmt.Sprintf("2001:db8::%x", i) }, 512},
		"a /48":           {func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }, 1024},
		"two addresses":   {func(i int) string { return fmt.Sprintf("192.0.2.%d", i%2) }, 1024},
	} {
		t.Run(name, func(t *testing.T) {
			l := newConnLimiter(defaultMaxConns)
			var held []*limitedConn
			for i := range defaultMaxConns {
				if entered := l.enter(&closing{from: c.from(i)}); entered != nil {
					l.changed(entered, http.StateActive)
					held = append(held, entered)
				}
			}
			require.Len(t, held, c.places)
			require.NotNil(t, l.enter(&closing{from: "198.51.100.1"}))
			l.changed(held[7], http.StateIdle)
			require.NotNil(t, l.enter(&closing{from: c.from(7)}), "it replaces its own idle one")
			require.True(t, held[7].Conn.(*closing).closed)
			require.Nil(t, l.enter(&closing{from: c.from(7)}))
		})
	}
}
