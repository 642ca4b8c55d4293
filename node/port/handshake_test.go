package port_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// clientTLS opens a connection, and returns at the end of the handshake.
func clientTLS(address string, protocol string, own *tls.Certificate, change ...func(*tls.Config)) (*tls.Conn, error) {
	//nolint:gosec // the tests are about the checks of the server
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
	if own != nil {
		cfg.Certificates = []tls.Certificate{*own}
	}
	for _, fn := range change {
		fn(cfg)
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: waitLimit}, "tcp", address, cfg)
}

// refusal reads until the connection ends, and returns the error.
func refusal(c *tls.Conn, err error) error {
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(waitLimit)); err != nil {
		return err
	}
	if _, err = io.Copy(io.Discard, c); err == nil {
		err = io.EOF
	}
	return err
}

// requireClosed fails unless err is that of a connection that the port has closed, with or without a TLS alert.
func requireClosed(t *testing.T, err error) {
	t.Helper()
	var op *net.OpError
	alert := errors.As(err, &op) && op.Op == "remote error"
	closed := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
	require.True(t, alert || closed, "%v", err)
}

// home gives a member an SVID and the bundle of its home domain.
func home(t *testing.T, m *member) *authority {
	t.Helper()
	ca := newAuthority(t, homeDomain, time.Now())
	own := ca.issue("spiffe://"+homeDomain+"/entente/member/"+m.id, time.Now().Add(time.Hour))
	m.api.set(&own, ca.bundles(homeDomain).bundles)
	return ca
}

// clusterClient returns a client with an SVID of the home domain.
func clusterClient(t *testing.T, m *member) ententev1.ClusterServiceClient {
	t.Helper()
	svid := home(t, m).issue("spiffe://"+homeDomain+"/operator", time.Now().Add(time.Hour))
	return ententev1.NewClusterServiceClient(dialAs(t, m, &svid))
}

func dialAs(t *testing.T, m *member, svid *tls.Certificate) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+m.address, grpc.WithTransportCredentials(clientCredentials(svid)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func saveSnapshot(ctx context.Context, t *testing.T, api ententev1.ClusterServiceClient) [][]byte {
	t.Helper()
	save, err := api.SaveSnapshot(ctx, &ententev1.SaveSnapshotRequest{})
	require.NoError(t, err)
	var chunks [][]byte
	for {
		m, err := save.Recv()
		if errors.Is(err, io.EOF) {
			return chunks
		}
		require.NoError(t, err)
		chunks = append(chunks, m.GetData())
	}
}

// requireNoFinished fails if a joiner sent more than its hello before it ended the handshake. In TLS 1.3 everything
// after the hello is encrypted: only an alert of 19 bytes with its record header may follow.
func requireNoFinished(t *testing.T, sent []byte) {
	t.Helper()
	const header, handshake, changeCipherSpec, applicationData, encryptedAlert = 5, 22, 20, 23, 2 + 1 + 16
	require.NotEmpty(t, sent)
	hellos := 0
	for len(sent) > 0 {
		require.GreaterOrEqual(t, len(sent), header)
		kind, length := sent[0], int(sent[3])<<8|int(sent[4])
		require.GreaterOrEqual(t, len(sent), header+length)
		sent = sent[header+length:]
		switch kind {
		case handshake:
			hellos++
		case changeCipherSpec:
		case applicationData:
			require.LessOrEqual(t, length, encryptedAlert, "only an alert may follow the hello")
		default:
			assert.Equal(t, byte(21), kind, "an alert in the clear")
		}
	}
	require.Equal(t, 1, hellos)
}

func TestProtocolsAreNotConfused(t *testing.T) {
	a := newMember(t, "eu-1").form()
	ca := home(t, a)
	b := newMember(t, "eu-2").joined(a)
	workload := ca.issue("spiffe://"+homeDomain+"/billing", time.Now().Add(time.Hour))
	unknown, err := memberid.LoadIdentity(t.TempDir() + "/identity.key")
	require.NoError(t, err)
	foreign := newAuthority(t, "us.example.org", time.Now()).issue("spiffe://us.example.org/billing",
		time.Now().Add(time.Hour))

	for name, c := range map[string]struct {
		protocol port.Protocol
		own      *tls.Certificate
		change   func(*tls.Config)
		label    string
		reason   port.Reason
	}{
		"an SVID under raft":   {protocol: port.Raft, own: &workload, reason: port.ReasonUnknownIdentity},
		"an SVID under member": {protocol: port.Member, own: &workload, reason: port.ReasonUnknownIdentity},
		"a member's identity under h2": {protocol: port.GRPC, own: &b.identity.Certificate,
			reason: port.ReasonMalformedSVID},
		"a foreign SVID under h2": {protocol: port.GRPC, own: &foreign, reason: port.ReasonUntrustedDomain},
		"an unknown identity": {protocol: port.Raft, own: &unknown.Certificate,
			reason: port.ReasonUnknownIdentity},
		"the member's own identity": {protocol: port.Member, own: &a.identity.Certificate,
			reason: port.ReasonWrongIdentity},
		"no certificate under raft": {protocol: port.Raft, reason: port.ReasonHandshake},
		"no certificate under h2":   {protocol: port.GRPC, reason: port.ReasonHandshake},
		"two protocols": {protocol: port.GRPC, own: &b.identity.Certificate,
			change: offer("h2", "entente-raft/1"), label: "none", reason: port.ReasonSeveralProtocols},
		"no protocol": {protocol: port.GRPC, own: &workload, change: offer(), label: "none",
			reason: port.ReasonNoProtocol},
		"a foreign protocol": {protocol: port.GRPC, own: &workload, change: offer("http/1.1"), label: "none",
			reason: port.ReasonNoProtocol},
		"TLS 1.2": {protocol: port.GRPC, own: &workload,
			change: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, reason: port.ReasonHandshake},
		"two certificates for one member": {protocol: port.Raft,
			own: &tls.Certificate{Certificate: [][]byte{b.identity.Certificate.Certificate[0], workload.Certificate[0]},
				PrivateKey: b.identity.Certificate.PrivateKey}, reason: port.ReasonWrongIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			label := string(c.protocol)
			if c.label != "" {
				label = c.label
			}
			if c.change == nil {
				c.change = func(*tls.Config) {}
			}
			before := refused(t, a, label, c.reason)
			requireClosed(t, refusal(clientTLS(a.address, string(c.protocol), c.own, c.change)))
			a.eventually("counts the refusal", func() error {
				if refused(t, a, label, c.reason) == before {
					return fmt.Errorf("nothing was refused as %s under %s", c.reason, label)
				}
				return nil
			})
		})
	}

	t.Run("a joiner gets nothing but the join", func(t *testing.T) {
		conn, err := port.DialJoin(t.Context(), a.address, func(port.Identity) error { return nil })
		require.NoError(t, err)
		client, err := grpc.NewClient("passthrough:///join", grpc.WithTransportCredentials(port.Credentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return conn, nil }))
		require.NoError(t, err)
		defer client.Close()
		_, err = ententev1.NewMemberServiceClient(client).GetMembership(t.Context(), &ententev1.GetMembershipRequest{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
		_, err = ententev1.NewClusterServiceClient(client).CreateJoinToken(t.Context(),
			&ententev1.CreateJoinTokenRequest{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
	})
}

func offer(protocols ...string) func(*tls.Config) {
	return func(c *tls.Config) { c.NextProtos = protocols }
}

// refused returns the number of refusals with a protocol and a reason.
func refused(t *testing.T, m *member, protocol string, reason port.Reason) float64 {
	t.Helper()
	families, err := m.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "entente_port_refused_total" {
			continue
		}
		for _, s := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range s.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["protocol"] == protocol && labels["reason"] == string(reason) {
				return s.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestNoSessionIsEverResumed(t *testing.T) {
	a := newMember(t, "eu-1").form()
	ca := home(t, a)
	workload := ca.issue("spiffe://"+homeDomain+"/billing", time.Now().Add(time.Hour))
	cache := &countingCache{ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	for _, protocol := range []port.Protocol{port.GRPC, port.GRPC, port.Join} {
		conn, err := clientTLS(a.address, string(protocol), &workload,
			func(c *tls.Config) { c.ClientSessionCache, c.ServerName = cache, "eu-1" })
		require.NoError(t, err)
		assert.False(t, conn.ConnectionState().DidResume)
		// The server sends first in HTTP/2, so a ticket would arrive before this byte.
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(waitLimit)))
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	assert.Zero(t, cache.tickets, "the member gave out a session ticket")
}

type countingCache struct {
	tls.ClientSessionCache
	tickets int
}

func (c *countingCache) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		c.tickets++
	}
	c.ClientSessionCache.Put(key, s)
}

func TestClientConnectionsEndWithTheirSVIDOrBundle(t *testing.T) {
	a := newMember(t, "eu-1").form()
	ca := home(t, a)
	open := func(ttl time.Duration) (*tls.Conn, error) {
		svid := ca.issue("spiffe://"+homeDomain+"/billing", time.Now().Add(ttl))
		conn, err := clientTLS(a.address, "h2", &svid)
		if err != nil {
			return nil, err
		}
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(waitLimit)))
		_, err = conn.Read(make([]byte, 1))
		return conn, err
	}

	short, err := open(time.Second)
	for ttl := 2 * time.Second; err != nil && ttl < waitLimit; ttl *= 2 {
		short, err = open(ttl) // the SVID expired before this machine was done with the handshake
	}
	require.NoError(t, err)
	requireClosed(t, refusal(short, nil)) // its SVID has expired
	assert.NotZero(t, gather(t, a, "entente_port_closed_total", string(port.ReasonExpiredSVID)))

	// A renewal of the member's own SVID closes no connection.
	long, err := open(time.Hour)
	require.NoError(t, err)
	renewed := ca.issue("spiffe://"+homeDomain+"/entente/member/eu-1", time.Now().Add(time.Hour))
	bundles := ca.bundles(homeDomain).bundles
	a.api.set(&renewed, bundles)
	a.port.Recheck()
	_, err = long.Read(make([]byte, 1))
	require.NoError(t, err, "HTTP/2 settings go on coming")

	// A bundle without the authority that signed the caller's SVID closes the connection.
	a.api.set(&renewed, newAuthority(t, homeDomain, time.Now()).bundles(homeDomain).bundles)
	a.port.Recheck()
	var timeout net.Error
	err = refusal(long, nil)
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the connection stayed open")
	assert.NotZero(t, gather(t, a, "entente_port_closed_total", string(port.ReasonUnverifiedSVID)))
	require.ErrorContains(t, refusal(clientTLS(a.address, "h2", &renewed)), "bad certificate")
}

func TestGRPCCallsHaveTheVerifiedCaller(t *testing.T) {
	a := newMember(t, "eu-1").form()
	answer, err := clusterClient(t, a).ListMembers(t.Context(), &ententev1.ListMembersRequest{})
	require.NoError(t, err)
	require.Len(t, answer.GetMembers(), 1)
	assert.Equal(t, "eu-1", answer.GetMembers()[0].GetId())
	assert.True(t, answer.GetMembers()[0].GetLeader())

	// The credentials refuse a connection that no port has verified.
	here, there := net.Pipe()
	defer there.Close()
	_, _, err = port.Credentials().ServerHandshake(here)
	require.ErrorContains(t, err, "does not come from a port")
}

// One host may have a quarter of the connections of joiners, and can open another one for each that it closes.
func TestJoinersOfOneHostAreLimited(t *testing.T) {
	a := newMember(t, "eu-1").form()
	const share = 8
	var held []net.Conn
	for range share {
		c, err := port.DialJoin(t.Context(), a.address, func(port.Identity) error { return nil })
		require.NoError(t, err)
		held = append(held, c)
	}
	a.eventually("counted them", func() error {
		if n := gather(t, a, "entente_port_connections", "entente-join/1"); n != share {
			return fmt.Errorf("%v are open", n)
		}
		return nil
	})
	requireClosed(t, refusal(clientTLS(a.address, string(port.Join), nil)))
	a.eventually("counts the refusal", func() error {
		if refused(t, a, string(port.Join), port.ReasonTooMany) != 1 {
			return errors.New("not refused")
		}
		return nil
	})
	for _, c := range held {
		require.NoError(t, c.Close())
	}
	a.eventually("lets it in again", func() error {
		c, err := port.DialJoin(t.Context(), a.address, func(port.Identity) error { return nil })
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }() // a test's
		if n := gather(t, a, "entente_port_connections", "entente-join/1"); n == 0 {
			return errors.New("not admitted yet")
		}
		return nil
	})
}

// handshakes runs a port with limits on handshakes, and a member that holds its address and metrics.
func handshakes(t *testing.T, timeout time.Duration) (*member, *port.Port) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	id, err := memberid.LoadIdentity(t.TempDir() + "/identity.key")
	require.NoError(t, err)
	api := &credentialsOfClients{}
	m := &member{t: t, id: "eu-1", registry: newRegistry(), address: l.Addr().String()}
	p, err := port.New(port.Config{
		Listener: l, Self: "eu-1", Identity: id.Certificate, Members: directory.New("eu-1", nil),
		Certificates: api, Trust: api, Registerer: m.registry,
		HandshakeTimeout: timeout, MaxHandshakes: 3, MaxHandshakesPerAddress: 2,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return m, p
}

// refusedFor waits until n handshakes under a protocol were refused for a reason.
func (m *member) refusedFor(protocol string, reason port.Reason, n float64) {
	m.t.Helper()
	m.eventually("refuses for "+string(reason), func() error {
		if got := refused(m.t, m, protocol, reason); got != n {
			return fmt.Errorf("%v were refused, not %v", got, n)
		}
		return nil
	})
}

func TestStalledHandshakesGiveWay(t *testing.T) {
	m, p := handshakes(t, waitLimit)
	for range 3 {
		c, err := net.Dial("tcp", m.address)
		require.NoError(t, err)
		defer c.Close()
	}
	m.refusedFor("none", port.ReasonGaveWay, 1) // the first of one address, which may have two
	// Nothing serves joins here. The joiner is refused at once, beside two idle connections.
	require.NoError(t, p.Listener(port.Join).Close())
	requireClosed(t, refusal(clientTLS(m.address, string(port.Join), nil)))
	m.refusedFor(string(port.Join), port.ReasonNotServed, 1)
	m.refusedFor("none", port.ReasonGaveWay, 2)
}

func TestSilentHandshakesTimeOut(t *testing.T) {
	m, _ := handshakes(t, 200*time.Millisecond)
	for range 2 {
		c, err := net.Dial("tcp", m.address)
		require.NoError(t, err)
		_, err = c.Read(make([]byte, 1))
		requireClosed(t, err)
		require.NoError(t, c.Close())
	}
	m.refusedFor("none", port.ReasonTimeout, 2)
}
