package authority

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// api serves the SVID service of a member over gRPC and TLS 1.3 on loopback, behind the guard and with an audit log in
// a file, as a member does.
type api struct {
	t       testing.TB
	member  *node
	guard   *access.Guard
	address string
}

// auditFile returns an audit log in a file, for [Config.Audit].
func auditFile(t testing.TB) *audit.Log {
	t.Helper()
	log, err := audit.Open(audit.Config{Path: filepath.Join(t.TempDir(), "audit.log"), Member: "member-1"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	return log
}

func serveAPI(t testing.TB, c *node, log *audit.Log) *api {
	t.Helper()
	guard, err := access.NewGuard(access.GuardConfig{
		Store: c.store, Home: home, Log: log,
		Hosted: func(r raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return table.Hosts(r, td.Name()) },
	})
	require.NoError(t, err)
	a := &api{t: t, member: c, guard: guard}
	a.address = a.serve(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.MemberSVID() },
	}), callerOfTLS)
	return a
}

func (a *api) serve(base credentials.TransportCredentials, caller func(credentials.AuthInfo) access.Caller) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(a.t, err)
	server := grpc.NewServer(append(a.guard.ServerOptions(), grpc.Creds(identifying{base, caller}))...)
	a.guard.RegisterServices(server)
	ententev1.RegisterSVIDServiceServer(server, a.member.SVIDService())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	a.t.Cleanup(func() {
		server.Stop()
		require.NoError(a.t, <-served)
	})
	return listener.Addr().String()
}

// identifying are server credentials that pass the caller to the guard.
type identifying struct {
	credentials.TransportCredentials
	caller func(credentials.AuthInfo) access.Caller
}

type identified struct {
	credentials.AuthInfo
	caller access.Caller
}

func (i identified) AccessCaller() access.Caller { return i.caller }

func (i identifying) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := i.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		return nil, nil, err
	}
	return conn, identified{info, i.caller(info)}, nil
}

func (i identifying) Clone() credentials.TransportCredentials {
	return identifying{i.TransportCredentials.Clone(), i.caller}
}

func callerOfTLS(info credentials.AuthInfo) access.Caller {
	peers := info.(credentials.TLSInfo).State.PeerCertificates
	if len(peers) == 0 || len(peers[0].URIs) != 1 {
		return access.Caller{}
	}
	id, err := spiffeid.FromURI(peers[0].URIs[0])
	if err != nil {
		return access.Caller{}
	}
	return access.SVIDCaller(id)
}

// dial connects with an SVID of that name.
func (a *api) dial(id string) ententev1.SVIDServiceClient {
	a.t.Helper()
	key, err := keys.Generate()
	require.NoError(a.t, err)
	// A request from another member is not counted against the rate of a caller.
	signed, err := a.member.SigningService().SignX509SVID(
		access.WithCaller(context.Background(), access.MemberCaller("member-0")),
		&ententev1.SignX509SVIDRequest{
			Request: &ententev1.IssueX509SVIDRequest{SpiffeId: id, Csr: csr(a.t, key)},
			Caller:  "test",
		})
	require.NoError(a.t, err)
	roots := x509.NewCertPool()
	for _, anchor := range a.member.issuer.State().Domains[home].Bundle.X509Authorities() {
		roots.AddCert(anchor)
	}
	return ententev1.NewSVIDServiceClient(a.connect(a.address, credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{{Certificate: signed.GetCertificates(), PrivateKey: key}},
		InsecureSkipVerify: true, // SPIFFE names no hosts: VerifyConnection checks the chain and the ID
		VerifyConnection: func(s tls.ConnectionState) error {
			intermediates := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				intermediates.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(
				x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: a.member.config.Now()})
			return err
		},
	})))
}

func (a *api) connect(address string, creds credentials.TransportCredentials) *grpc.ClientConn {
	a.t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	require.NoError(a.t, err)
	a.t.Cleanup(func() { require.NoError(a.t, conn.Close()) })
	return conn
}

// grant lets a caller issue below a path, or in the whole domain if the path is empty.
func (a *api) grant(id, path string) {
	a.t.Helper()
	socket := a.serve(insecure.NewCredentials(),
		func(credentials.AuthInfo) access.Caller { return access.SocketCaller(0, 1) })
	_, err := ententev1.NewAccessServiceClient(a.connect(socket, insecure.NewCredentials())).
		GrantRole(context.Background(), &ententev1.GrantRoleRequest{
			Grant: &ententev1.Grant{
				Role: ententev1.Role_ROLE_ISSUER, SpiffeId: id, TrustDomain: home.Name(), PathPrefix: path,
			},
		})
	require.NoError(a.t, err)
}

// csrOf returns a PKCS #10 request with a new key.
func csrOf(t testing.TB) []byte {
	t.Helper()
	key, err := keys.Generate()
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	return der
}
