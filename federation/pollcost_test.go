package federation

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
)

// metered counts the bytes of its connections in both directions, as TCP sees them.
type metered struct {
	bytes, dials atomic.Int64
}

func (m *metered) dial(ctx context.Context, network, address string) (net.Conn, error) {
	m.dials.Add(1)
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &meteredConn{conn, m}, nil
}

type meteredConn struct {
	net.Conn
	meter *metered
}

func (c *meteredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.meter.bytes.Add(int64(n))
	return n, err
}

func (c *meteredConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.meter.bytes.Add(int64(n))
	return n, err
}

// TestUnchangedPoll tests that a poll without news writes nothing, and transfers less than 1 KiB over a kept
// connection, or a handshake more if the interval is too long to keep one.
func TestUnchangedPoll(t *testing.T) {
	for _, test := range []struct {
		name  string
		hint  time.Duration
		least time.Duration
		dials int64
		most  int64
	}{
		{"a hint of half a minute", 30 * time.Second, relationship.LowestMinRefresh, 0, 1 << 10},
		{"a hint of five minutes", 5 * time.Minute, relationship.LowestMinRefresh, 0, 1 << 10},
		{"the longest for which a connection is kept", 10 * time.Minute, relationship.LowestMinRefresh, 0, 1 << 10},
		{"a hint of half an hour", 30 * time.Minute, relationship.LowestMinRefresh, 10, 6 << 10},
		{"a short hint and a longer least interval", 30 * time.Second, 11 * time.Minute, 10, 6 << 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			meter := &metered{}
			r := newRoom(t, func(c *Config) { c.Client.Dial, c.MinRefresh = meter.dial, test.least })
			t.Cleanup(r.manager.poller.Close)
			us := federationtest.NewAuthority(t, "us.example.org").Every(test.hint)
			p := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
			r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
			require.NoError(t, r.manager.catalog.Load(r.store.View(), func(err error) { t.Error(err) }))
			for range 2 { // the first poll stores the tag, and that there are no statements
				require.NoError(t, r.manager.poller.Refresh(t.Context(), "us.example.org").Err)
			}
			revision, bytes, dials := r.store.View().Revision(), meter.bytes.Load(), meter.dials.Load()
			const polls = 10
			for range polls {
				out := r.manager.poller.Refresh(t.Context(), "us.example.org")
				require.NoError(t, out.Err)
				require.Equal(t, relationship.ResultNotModified, out.Result)
			}
			require.Equal(t, revision, r.store.View().Revision(), "nothing is written")
			require.Equal(t, test.dials, meter.dials.Load()-dials)
			each := (meter.bytes.Load() - bytes) / polls
			t.Logf("%d bytes each", each)
			require.Less(t, each, test.most)
		})
	}
}
