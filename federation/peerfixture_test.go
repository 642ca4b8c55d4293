package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/svid"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// site is a cluster of one member under test, with an API port that other sites can reach.
type site struct {
	*room
	home     *federationtest.Authority
	endpoint *federationtest.Endpoint
	address  string
	stop     func()
	port     *grpc.Server
}

// svidConn is a connection whose other end was verified.
type svidConn struct {
	*tls.Conn
	id spiffeid.ID
}

// svidInfo is the verified identity of the other end.
type svidInfo struct {
	credentials.CommonAuthInfo
	id spiffeid.ID
}

func (svidInfo) AuthType() string              { return "tls" }
func (i svidInfo) AccessCaller() access.Caller { return access.SVIDCaller(i.id) }

// svidCredentials replace the port's credentials: the handshake is done before gRPC gets the connection, or here on the
// server.
type svidCredentials struct{ server *tls.Config }

func (c svidCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Server(raw, c.server)
	if err := conn.HandshakeContext(context.Background()); err != nil {
		return nil, nil, err
	}
	id, err := spiffeid.FromURI(conn.ConnectionState().PeerCertificates[0].URIs[0])
	return conn, svidInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, id}, err
}

func (c svidCredentials) ClientHandshake(
	_ context.Context,
	_ string,
	raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	conn, ok := raw.(*svidConn)
	if !ok {
		return nil, nil, errors.New("not a verified connection")
	}
	return conn, svidInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, conn.id}, nil
}

func (svidCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (c svidCredentials) Clone() credentials.TransportCredentials { return c }
func (svidCredentials) OverrideServerName(string) error           { return nil }

// verify verifies the other end against the bundles in a store, as the port does.
func verify(s *raftstore.Store, chain []*x509.Certificate) (spiffeid.ID, error) {
	verified, err := svid.Verify(chain, source(func(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
		row, found, err := relationship.ForeignBundles.Get(s.View(), td.Name())
		if err != nil || !found {
			return nil, errors.Join(err, errors.New("no bundle"))
		}
		b, err := trust.Parse(row.Value)
		if err != nil {
			return nil, err
		}
		return b.GetX509BundleForTrustDomain(td)
	}), time.Now())
	return verified.ID, err
}

type source func(spiffeid.TrustDomain) (*x509bundle.Bundle, error)

func (f source) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return f(td)
}

// dialAs opens a verified connection with an SVID.
func dialAs(
	ctx context.Context,
	own tls.Certificate,
	address string,
	check func([]*x509.Certificate) (spiffeid.ID, error),
) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	var id spiffeid.ID
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies the X509-SVID
		VerifyConnection: func(state tls.ConnectionState) (err error) {
			id, err = check(state.PeerCertificates)
			return err
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return &svidConn{conn, id}, nil
}

// newSite returns a cluster of one member that hosts a domain with a hint of an hour, serves it at an endpoint, and
// accepts streams.
func newSite(t testing.TB, name string, adjust ...func(*Config)) *site {
	t.Helper()
	a := federationtest.NewAuthority(t, name).Every(time.Hour)
	s := &site{home: a}
	own := a.MemberSVID(t, "/entente/member/member-1")
	s.room = newRoom(t, append(adjust, func(c *Config) {
		c.Peers = peer.Transport{
			Home:        a.TrustDomain,
			Payload:     c.Peers.Payload,
			Credentials: svidCredentials{},
			Dial: func(
				ctx context.Context, _ egress.Route, address string, home spiffeid.TrustDomain,
			) (net.Conn, error) {
				return dialAs(ctx, own, address, func(chain []*x509.Certificate) (spiffeid.ID, error) {
					id, err := verify(c.Store, chain)
					if err == nil && id.TrustDomain() != home {
						err = errors.New("the other end is of another trust domain")
					}
					return id, err
				})
			},
		}
	})...)
	s.endpoint = federationtest.NewEndpoint(t, a, a.Bundle(t, 1))
	s.host(t, a)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.address = l.Addr().String()
	store := s.store
	s.port = grpc.NewServer(
		grpc.Creds(svidCredentials{&tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert,
			NextProtos: []string{"h2"},
			VerifyConnection: func(state tls.ConnectionState) error {
				_,
					err := verify(store, state.PeerCertificates)
				return err
			},
		}}),
		grpc.StreamInterceptor(
			func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
				p, _ := grpcpeer.FromContext(ss.Context())
				return handler(srv, &calledStream{ss,
					access.WithCaller(ss.Context(), p.AuthInfo.(access.Identified).AccessCaller())})
			},
		),
	)
	ententev1.RegisterPeerServiceServer(s.port, peer.NewService(s.manager.streams))
	go func() { _ = s.port.Serve(l) }()
	s.stop = s.run(t)
	t.Cleanup(func() {
		s.manager.streams.Drain()
		s.port.Stop()
	})
	return s
}

// streamsEnded returns how many streams of the site ended for a reason.
func (s *site) streamsEnded(t testing.TB, reason string) float64 {
	t.Helper()
	return s.metric(t, "entente_federation_streams_ended_total", "reason", reason)
}

// openStreams returns how many streams of the site are open.
func (s *site) openStreams(t testing.TB) float64 {
	t.Helper()
	name := "entente_federation_streams"
	return s.metric(t, name, "direction", "incoming") + s.metric(t, name, "direction", "outgoing")
}

// metric returns the value of the site's metric with a label, or 0 if there is none.
func (s *site) metric(t testing.TB, name, label, value string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if l := m.GetLabel(); len(l) == 1 && l[0].GetName() == label && l[0].GetValue() == value {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

type calledStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *calledStream) Context() context.Context { return s.ctx }

// publish hosts a bundle with another sequence.
func (s *site) publish(t testing.TB, b *bundle.Bundle) {
	t.Helper()
	_, err := s.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return federationtest.HostedBundles.Put(tx, b.TrustDomain().Name(), b.Row(time.Now()))
	})
	require.NoError(t, err)
}

// federateWith creates a relationship with another site's home domain, over a stream.
func (s *site) federateWith(t testing.TB, other *site, addresses ...string) {
	t.Helper()
	rel := spiffeRelationship(other.home, other.endpoint)
	rel.Peer = &ententev1.Peer{HomeTrustDomain: other.home.TrustDomain.Name(), Addresses: addresses}
	s.create(t, rel, other.home.Bundle(t, 1))
}

// pair returns two sites whose relationships name each other. The first one dials.
func pair(t testing.TB) (a, b *site) {
	t.Helper()
	a, b = newSite(t, "eu.example.org"), newSite(t, "us.example.org")
	b.federateWith(t, a)
	a.federateWith(t, b, b.address)
	a.awaitStream(t, b, true)
	b.awaitStream(t, a, true)
	return a, b
}

// until waits for a condition that no table shows.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(federationtest.WaitLimit)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !condition() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// shownStream returns the stream with another site as operators see it.
func (s *site) shownStream(t testing.TB, other *site) *ententev1.PeerStream {
	t.Helper()
	rel, err := s.service.GetRelationship(context.Background(),
		&ententev1.GetRelationshipRequest{TrustDomain: other.home.TrustDomain.Name()})
	require.NoError(t, err)
	if len(rel.GetStreams()) == 0 {
		return &ententev1.PeerStream{}
	}
	return rel.GetStreams()[0]
}

// awaitStream waits until a stream with another site is up and confirms its bundle, or is down.
func (s *site) awaitStream(t testing.TB, other *site, up bool) {
	t.Helper()
	until(t, "the stream with "+other.home.TrustDomain.Name(), func() bool {
		shown := s.shownStream(t, other)
		return shown.GetConnected() == up && (!up || len(shown.GetConfirmed()) > 0)
	})
}

// awaitAcknowledged waits until another site has acknowledged a sequence of this one's home domain.
func (s *site) awaitAcknowledged(t testing.TB, other *site, sequence uint64) {
	t.Helper()
	until(t, "an acknowledgement", func() bool {
		for _, a := range s.shownStream(t, other).GetAcknowledgements() {
			if a.GetTrustDomain() == s.home.TrustDomain.Name() && a.GetSequence() == sequence && !a.GetPending() {
				return true
			}
		}
		return false
	})
}
