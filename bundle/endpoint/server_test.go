package endpoint_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/internal/clocktest"
)

// ownEndpoint has h served under https_web, and returns how a path of it is fetched as the bundle of home.
func ownEndpoint(t testing.TB, h *endpoint.Handler, path string) endpoint.Remote {
	t.Helper()
	address, roots := bundletest.ServeWeb(t, h)
	e, err := endpoint.NewWeb(bundletest.Home, bundletest.LocalhostURL(address, path), roots)
	require.NoError(t, err)
	return e
}

// spiffeServer serves a self-serving domain under https_spiffe.
func spiffeServer(t testing.TB) (address string, b *bundle.Bundle) {
	t.Helper()
	ca := bundletest.NewAuthority(t, bundletest.Home)
	b = bundletest.NewBundle(t, bundletest.Home, 7, ca)
	h, err := endpoint.NewHandler(nil)
	require.NoError(t, err)
	require.NoError(t, h.Publish(endpoint.Publication{Home: bundletest.Home, Hosted: []endpoint.Hosted{{Bundle: b}}}))
	svid := ca.SVID(t, "spiffe://eu.example.org/entente/bundle-endpoint")
	return bundletest.Serve(
		t,
		endpoint.ServerConfig{Handler: h, SVIDs: func(context.Context, spiffeid.TrustDomain) (*tls.Certificate, error) {
			return svid, nil
		}},
	), b
}

func TestGoSPIFFEFetchesFromUs(t *testing.T) {
	t.Run("https_spiffe", func(t *testing.T) {
		address, b := spiffeServer(t)
		bootstrap := spiffebundle.FromX509Authorities(bundletest.Home, b.X509Authorities())
		got, err := federation.FetchBundle(
			t.Context(),
			bundletest.Home,
			"https://"+address+"/",
			federation.WithSPIFFEAuth(
				bootstrap,
				spiffeid.RequireFromString("spiffe://eu.example.org/entente/bundle-endpoint"),
			),
		)
		require.NoError(t, err)
		n, _ := got.SequenceNumber()
		require.Equal(t, uint64(7), n)
		require.Equal(t, b.X509Authorities(), got.X509Authorities())
	})
	t.Run("https_web", func(t *testing.T) {
		h, bundles := bundletest.NewHandler(t)
		address, roots := bundletest.ServeWeb(t, h)
		pool := x509.NewCertPool()
		require.True(t, pool.AppendCertsFromPEM(roots))
		got, err := federation.FetchBundle(
			t.Context(),
			bundletest.Home,
			bundletest.LocalhostURL(address, "/"),
			federation.WithWebPKIRoots(pool),
		)
		require.NoError(t, err)
		require.Equal(t, bundles["eu.example.org"].X509Authorities(), got.X509Authorities())
	})
}

// TestGoSPIFFEFollowsAHub: a SPIRE server follows a foreign domain by the hub that attests to it, with its own hint.
func TestGoSPIFFEFollowsAHub(t *testing.T) {
	h, bundles := bundletest.NewHandler(t)
	address, roots := bundletest.ServeWeb(t, h)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(roots))
	got, err := federation.FetchBundle(
		t.Context(),
		bundletest.Foreign,
		bundletest.LocalhostURL(address, "/bundles/us.example.org"),
		federation.WithWebPKIRoots(pool),
	)
	require.NoError(t, err)
	want := bundles["us.example.org"]
	require.Equal(t, want.X509Authorities(), got.X509Authorities())
	sequence, _ := want.Sequence()
	n, _ := got.SequenceNumber()
	require.Equal(t, sequence, n)
	hint, _ := want.RefreshHint()
	theirs, _ := got.RefreshHint()
	require.Equal(t, hint, theirs)
}

func TestServerPresentsTheSVIDOfTheHost(t *testing.T) {
	h, _ := bundletest.NewHandler(t)
	cas := map[string]bundletest.Authority{
		"eu.example.org": bundletest.NewAuthority(t, bundletest.Home),
		"bank.example":   bundletest.NewAuthority(t, spiffeid.RequireTrustDomainFromString("bank.example")),
	}
	address := bundletest.Serve(
		t,
		endpoint.ServerConfig{
			Handler: h,
			SVIDs: func(_ context.Context, td spiffeid.TrustDomain) (*tls.Certificate, error) {
				return cas[td.Name()].SVID(t, td.IDString()+"/entente/bundle-endpoint"), nil
			},
		},
	)
	for _, test := range []struct{ sni, id string }{
		{"", "spiffe://eu.example.org/entente/bundle-endpoint"},
		{"eu.test", "spiffe://eu.example.org/entente/bundle-endpoint"},
		{"bundle.bank.example", "spiffe://bank.example/entente/bundle-endpoint"},
		{"BUNDLE.BANK.example", "spiffe://bank.example/entente/bundle-endpoint"},
	} {
		// The test compares the presented certificate; it does not verify it.
		conn, err := tls.Dial(
			"tcp",
			address,
			&tls.Config{
				ServerName:         test.sni,
				InsecureSkipVerify: true,
				VerifyConnection:   func(tls.ConnectionState) error { return nil },
			},
		)
		require.NoError(t, err)
		require.Equal(t, test.id, conn.ConnectionState().PeerCertificates[0].URIs[0].String())
		require.NoError(t, conn.Close())
	}
}

func TestServerTLS(t *testing.T) {
	h, _ := bundletest.NewHandler(t)
	address, roots := bundletest.ServeWeb(t, h)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	for _, test := range []struct {
		name   string
		config *tls.Config
		err    string
	}{
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, ""},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, ""},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			"remote error: tls: protocol version not supported"},
		{"no forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, "remote error: tls: handshake failure"},
		{"CBC", &tls.Config{MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, "remote error: tls: handshake failure"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := test.config.Clone()
			config.RootCAs, config.ServerName = pool, "localhost"
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				t.Error("the server requests a client certificate")
				return &tls.Certificate{}, nil
			}
			conn, err := tls.Dial("tcp", address, config)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		})
	}
}

func TestServerBounds(t *testing.T) {
	h, _ := bundletest.NewHandler(t)
	certFile, keyFile, roots := bundletest.WritePair(t, t.TempDir(), bundletest.NewAuthority(t, bundletest.Home))
	files, err := webcert.NewCertificateFiles(webcert.CertificateFilesConfig{CertFile: certFile, KeyFile: keyFile})
	require.NoError(t, err)
	registry := prometheus.NewRegistry()
	address := bundletest.Serve(
		t,
		endpoint.ServerConfig{Handler: h, Web: files, MaxConnections: 2, Registerer: registry},
	)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	open := func() *tls.Conn {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool, ServerName: "localhost"})
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	// However many keep their connections, there is one for the next.
	first := open()
	require.NoError(t, requestOver(first))
	require.NoError(t, requestOver(first), "a connection is kept")
	for range 5 {
		require.NoError(t, requestOver(open()))
	}
	requireClosed(t, requestOver(first)) // it has been idle for the longest time
	families, err := registry.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Subset(
		t,
		names,
		[]string{
			"entente_bundle_endpoint_connections",
			"entente_bundle_endpoint_connections_refused_total",
			"entente_bundle_endpoint_connections_evicted_total",
		},
	)

	first = open()
	_, err = io.WriteString(first, "GET / HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(first)
	if err == nil {
		require.Contains(t, string(answer), "431 Request Header Fields Too Large")
	}
	_ = first.Close()
}

// oneListener accepts one connection.
type oneListener struct {
	bundletest.SilentListener
	conns chan net.Conn
}

func (l oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.Closed:
		return nil, net.ErrClosed
	}
}

// TestServerKeepsConnectionsBetweenPolls: a poller that comes every ten minutes finds its connection.
func TestServerKeepsConnectionsBetweenPolls(t *testing.T) {
	certFile, keyFile, roots := bundletest.WritePair(t, t.TempDir(), bundletest.NewAuthority(t, bundletest.Home))
	files, err := webcert.NewCertificateFiles(webcert.CertificateFilesConfig{CertFile: certFile, KeyFile: keyFile})
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	now := time.Now()
	clocktest.Run(t, func(t *testing.T) {
		h, _ := bundletest.NewHandler(t)
		there, here := net.Pipe()
		l := oneListener{bundletest.NewSilentListener(), make(chan net.Conn, 1)}
		l.conns <- there
		s, err := endpoint.NewServer(endpoint.ServerConfig{Listener: l, Handler: h, Web: files})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		conn := tls.Client(
			here,
			&tls.Config{RootCAs: pool, ServerName: "localhost", Time: func() time.Time { return now }},
		)
		for range 4 {
			require.NoError(t, requestOver(conn))
			<-time.After(11 * time.Minute)
		}
		require.NoError(t, conn.Close())
		cancel()
		require.NoError(t, <-done)
	})
}

// requireClosed fails unless err is that of a connection that the server has closed.
func requireClosed(t *testing.T, err error) {
	t.Helper()
	closed := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
	require.True(t, closed, "%v", err)
}

// requestOver makes a request over a connection, and reads all of the answer.
func requestOver(conn net.Conn) error {
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return errors.Join(err, answer.Body.Close())
}

func TestServerWithoutAnSVID(t *testing.T) {
	h, _ := bundletest.NewHandler(t)
	registry := prometheus.NewRegistry()
	var log bundletest.LockedBuffer
	address := bundletest.Serve(t, endpoint.ServerConfig{
		Handler: h, Registerer: registry, Logger: hclog.New(&hclog.LoggerOptions{Output: &log}),
		SVIDs: func(context.Context, spiffeid.TrustDomain) (*tls.Certificate, error) {
			return nil, errors.New("no active authority")
		},
	})
	_, err := tls.Dial("tcp", address, &tls.Config{ServerName: "eu.test"})
	require.EqualError(t, err, "remote error: tls: internal error")
	require.Contains(t, log.String(), `error="X509-SVID of the bundle endpoint of eu.example.org: no active authority"`)
}

func TestServerConfig(t *testing.T) {
	h, _ := bundletest.NewHandler(t)
	_, err := endpoint.NewServer(endpoint.ServerConfig{})
	require.EqualError(t, err, "a bundle endpoint needs a listener and a handler")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	_, err = endpoint.NewServer(endpoint.ServerConfig{Listener: listener, Handler: h})
	require.EqualError(
		t,
		err,
		"a bundle endpoint has one profile: https_spiffe with SVIDs, or https_web with certificate files or with ACME",
	)
}

var _ http.Handler = (*endpoint.Handler)(nil)
