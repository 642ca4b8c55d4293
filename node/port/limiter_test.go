package port_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// served is a port under h2 that a test accepts the connections of.
type served struct {
	*member
	ca        *authority
	port      *port.Port
	accepted  chan net.Conn
	privilege atomic.Int32 // of every caller
}

func serveClients(t *testing.T, change func(*port.Config)) *served {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	require.NoError(t, err)
	_, number, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	id, err := memberid.LoadIdentity(t.TempDir() + "/identity.key")
	require.NoError(t, err)
	s := &served{
		member: &member{
			t: t, id: "eu-1", registry: newRegistry(), address: "127.0.0.1:" + number, api: &credentialsOfClients{},
		},
		accepted: make(chan net.Conn, 1024),
	}
	s.ca = home(t, s.member)
	cfg := port.Config{
		Listener: l, Self: "eu-1", Identity: id.Certificate, Members: directory.New("eu-1", nil),
		Certificates: s.api, Trust: s.api, Registerer: s.registry,
		Privilege: func(access.Caller) port.Privilege { return port.Privilege(s.privilege.Load()) },
	}
	change(&cfg)
	s.port, err = port.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.port.Run(ctx) }()
	go func() {
		for {
			c, err := s.port.Listener(port.GRPC).Accept()
			if err != nil {
				return
			}
			s.accepted <- c
		}
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return s
}

// connect opens a connection with an SVID, and returns both ends.
func (s *served) connect(svid *tls.Certificate) (client *tls.Conn, server net.Conn) {
	s.t.Helper()
	client, err := clientTLS(s.address, "h2", svid)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = client.Close() })
	return client, <-s.accepted
}

func (s *served) issue(path string) *tls.Certificate {
	svid := s.ca.issue("spiffe://"+homeDomain+path, time.Now().Add(time.Hour))
	return &svid
}

// A caller that opens many connections reaches its own limit, excludes no other caller, and can open another connection
// for each that it closes.
func TestConnectionsOfOneCallerAreLimited(t *testing.T) {
	s := serveClients(t, func(c *port.Config) { c.MaxClients = 8 }) // and two for each caller
	s.privilege.Store(int32(port.Granted))
	greedy := s.issue("/greedy")
	_, first := s.connect(greedy)
	s.connect(greedy)
	requireClosed(t, refusal(clientTLS(s.address, "h2", greedy))) // the third
	s.refusedFor("h2", port.ReasonTooMany, 1)
	s.connect(s.issue("/modest"))
	require.NoError(t, first.Close())
	s.connect(greedy)
}

// A caller without a grant takes the places of its own connections, so that it neither excludes others nor holds more.
func TestCallersWithoutAGrantReplaceTheirOwnConnections(t *testing.T) {
	s := serveClients(t, func(*port.Config) {})
	const perCaller, perDomain = 16, 64
	greedy := s.issue("/greedy")
	first, _ := s.connect(greedy)
	for range perCaller {
		s.connect(greedy)
	}
	requireClosed(t, refusal(first, nil))
	for i := range 2 * perDomain / perCaller {
		other := s.issue(fmt.Sprintf("/other-%d", i))
		for range perCaller {
			s.connect(other)
		}
	}
	s.eventually("counts the share of the domain", func() error {
		if n := gather(t, s.member, "entente_port_connections", "h2"); n != perDomain {
			return fmt.Errorf("%v are open", n)
		}
		return nil
	})
}

func TestRepeatedlyRefusedCallersAreDisconnected(t *testing.T) {
	s := serveClients(t, func(*port.Config) {})
	svid := s.issue("/curious")
	client, server := s.connect(svid)
	_, info, err := port.Credentials().ServerHandshake(server)
	require.NoError(t, err)
	refusable, ok := info.(port.AuthInfo)
	require.True(t, ok)
	const burst = 32
	for range 2 * burst {
		refusable.Refused()
	}
	requireClosed(t, refusal(client, nil))
	require.InDelta(t, 1, gather(t, s.member, "entente_port_closed_total", "h2"), 0)
	requireClosed(t, refusal(clientTLS(s.address, "h2", svid)))
	s.refusedFor("h2", port.ReasonBarred, 1)
	s.connect(s.issue("/another"))

	s.privilege.Store(int32(port.Granted))
	_, server = s.connect(svid) // at once with a grant
	_, info, err = port.Credentials().ServerHandshake(server)
	require.NoError(t, err)
	granted, ok := info.(port.AuthInfo)
	require.True(t, ok)
	for range 2 * burst {
		granted.Refused()
	}
	require.InDelta(t, 1, gather(t, s.member, "entente_port_closed_total", "h2"), 0)
}

// A grant moves an open connection out of the places of callers without one.
func TestAGrantKeepsTheConnection(t *testing.T) {
	s := serveClients(t, func(*port.Config) {})
	const perCaller = 16
	svid := s.issue("/web")
	s.connect(svid)
	s.privilege.Store(int32(port.Granted))
	s.port.Reclassify()
	s.privilege.Store(int32(port.Stranger))
	for range perCaller {
		s.connect(svid)
	}
	require.InDelta(t, perCaller+1, gather(t, s.member, "entente_port_connections", "h2"), 0)
	s.port.Reclassify() // the grant was revoked
	require.InDelta(t, perCaller, gather(t, s.member, "entente_port_connections", "h2"), 0)
}

// Two addresses with 256 idle connections each lock nobody out, not even a client at one of these addresses.
func TestIdleConnectionsLockNobodyOut(t *testing.T) {
	s := serveClients(t, func(c *port.Config) { c.HandshakeTimeout = waitLimit })
	s.privilege.Store(int32(port.Granted))
	const idle, share = 256, 64
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp", s.address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	for range idle {
		dial("127.0.0.1")
		dial("127.0.0.2")
	}
	s.refusedFor("none", port.ReasonGaveWay, 2*(idle-share))
	s.connect(s.issue("/web"))
	c := tls.Client(dial("127.0.0.3"), &tls.Config{ //nolint:gosec // the test is about the places
		InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{*s.issue("/web")},
	})
	require.NoError(t, c.HandshakeContext(t.Context()))
	<-s.accepted
	require.Zero(t, refused(t, s.member, "none", port.ReasonBusy))
}
