package bundle_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/clocktest"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// serve runs a server until the test ends, and returns its address.
func serve(t testing.TB, c bundle.ServerConfig) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c.Listener = listener
	s, err := bundle.NewServer(c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server broke: %v", err)
		}
	})
	return s.Addr().String()
}

// webPair writes a certificate for localhost and its key, and returns the files' names and the root in PEM.
func webPair(t testing.TB, dir string, ca authority) (certFile, keyFile string, roots []byte) {
	t.Helper()
	template := svidTemplate(spiffeid.RequireFromString("spiffe://eu.example.org/web"))
	template.URIs = nil
	cert := ca.sign(t, template)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, certFile, "CERTIFICATE", cert.Certificate[0])
	write(t, keyFile, "PRIVATE KEY", key)
	return certFile, keyFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

func write(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func webServer(t testing.TB, h *bundle.Handler) (address string, roots []byte) {
	t.Helper()
	certFile, keyFile, roots := webPair(t, t.TempDir(), newAuthority(t, home))
	files, err := bundle.NewCertificateFiles(bundle.CertificateFilesConfig{CertFile: certFile, KeyFile: keyFile})
	require.NoError(t, err)
	return serve(t, bundle.ServerConfig{Handler: h, Files: files}), roots
}

// ownEndpoint has h served under https_web, and returns how a path of it is fetched as the bundle of home.
func ownEndpoint(t testing.TB, h *bundle.Handler, path string) bundle.Endpoint {
	t.Helper()
	address, roots := webServer(t, h)
	e, err := bundle.WebEndpoint(home, localhost(address, path), roots)
	require.NoError(t, err)
	return e
}

func localhost(address, path string) string {
	_, port, _ := net.SplitHostPort(address)
	return "https://localhost:" + port + path
}

// spiffeServer serves a self-serving domain under https_spiffe.
func spiffeServer(t testing.TB) (address string, b *bundle.Bundle) {
	t.Helper()
	ca := newAuthority(t, home)
	b = newBundle(t, home, 7, ca)
	h, err := bundle.NewHandler(nil)
	require.NoError(t, err)
	require.NoError(t, h.Publish(bundle.Publication{Home: home, Hosted: []bundle.Hosted{{Bundle: b}}}))
	svid := ca.svid(t, "spiffe://eu.example.org/entente/bundle-endpoint")
	return serve(t, bundle.ServerConfig{Handler: h, SVIDs: func(context.Context, spiffeid.TrustDomain) (*tls.Certificate, error) {
		return svid, nil
	}}), b
}

func TestGoSPIFFEFetchesFromUs(t *testing.T) {
	t.Run("https_spiffe", func(t *testing.T) {
		address, b := spiffeServer(t)
		bootstrap := spiffebundle.FromX509Authorities(home, b.X509Authorities())
		got, err := federation.FetchBundle(t.Context(), home, "https://"+address+"/",
			federation.WithSPIFFEAuth(bootstrap, spiffeid.RequireFromString("spiffe://eu.example.org/entente/bundle-endpoint")))
		require.NoError(t, err)
		n, _ := got.SequenceNumber()
		require.Equal(t, uint64(7), n)
		require.Equal(t, b.X509Authorities(), got.X509Authorities())
	})
	t.Run("https_web", func(t *testing.T) {
		h, bundles := published(t)
		address, roots := webServer(t, h)
		pool := x509.NewCertPool()
		require.True(t, pool.AppendCertsFromPEM(roots))
		got, err := federation.FetchBundle(t.Context(), home, localhost(address, "/"), federation.WithWebPKIRoots(pool))
		require.NoError(t, err)
		require.Equal(t, bundles["eu.example.org"].X509Authorities(), got.X509Authorities())
	})
}

func TestServerPresentsTheSVIDOfTheHost(t *testing.T) {
	h, _ := published(t)
	cas := map[string]authority{"eu.example.org": newAuthority(t, home), "bank.example": newAuthority(t, spiffeid.RequireTrustDomainFromString("bank.example"))}
	address := serve(t, bundle.ServerConfig{Handler: h, SVIDs: func(_ context.Context, td spiffeid.TrustDomain) (*tls.Certificate, error) {
		return cas[td.Name()].svid(t, td.IDString()+"/entente/bundle-endpoint"), nil
	}})
	for _, test := range []struct{ sni, id string }{
		{"", "spiffe://eu.example.org/entente/bundle-endpoint"},
		{"eu.test", "spiffe://eu.example.org/entente/bundle-endpoint"},
		{"bundle.bank.example", "spiffe://bank.example/entente/bundle-endpoint"},
		{"BUNDLE.BANK.example", "spiffe://bank.example/entente/bundle-endpoint"},
	} {
		// Only what is presented matters here; there is nothing to trust.
		conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: test.sni, InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error { return nil }})
		require.NoError(t, err)
		require.Equal(t, test.id, conn.ConnectionState().PeerCertificates[0].URIs[0].String())
		require.NoError(t, conn.Close())
	}
}

func TestServerTLS(t *testing.T) {
	h, _ := published(t)
	address, roots := webServer(t, h)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	for _, test := range []struct {
		name   string
		config *tls.Config
		err    string
	}{
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, ""},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, ""},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "remote error: tls: protocol version not supported"},
		{"no forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, "remote error: tls: handshake failure"},
		{"CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, "remote error: tls: handshake failure"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := test.config.Clone()
			config.RootCAs, config.ServerName = pool, "localhost"
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				t.Error("the server asks for a client certificate")
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
	h, _ := published(t)
	certFile, keyFile, roots := webPair(t, t.TempDir(), newAuthority(t, home))
	files, err := bundle.NewCertificateFiles(bundle.CertificateFilesConfig{CertFile: certFile, KeyFile: keyFile})
	require.NoError(t, err)
	registry := prometheus.NewRegistry()
	address := serve(t, bundle.ServerConfig{Handler: h, Files: files, MaxConnections: 2, Registerer: registry})
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
	require.NoError(t, ask(first))
	require.NoError(t, ask(first), "a connection is kept")
	for range 5 {
		require.NoError(t, ask(open()))
	}
	require.Error(t, ask(first), "it has lain idle for longest")
	families, err := registry.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Subset(t, names, []string{"entente_bundle_endpoint_connections", "entente_bundle_endpoint_connections_refused_total", "entente_bundle_endpoint_connections_gave_way_total"})

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
	pipeListener
	conns chan net.Conn
}

func (l oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// TestServerKeepsConnectionsBetweenPolls: a poller that comes every ten minutes finds its connection.
func TestServerKeepsConnectionsBetweenPolls(t *testing.T) {
	certFile, keyFile, roots := webPair(t, t.TempDir(), newAuthority(t, home))
	files, err := bundle.NewCertificateFiles(bundle.CertificateFilesConfig{CertFile: certFile, KeyFile: keyFile})
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	now := time.Now()
	clocktest.Run(t, func(t *testing.T) {
		h, _ := published(t)
		there, here := net.Pipe()
		l := oneListener{pipeListener{make(chan struct{})}, make(chan net.Conn, 1)}
		l.conns <- there
		s, err := bundle.NewServer(bundle.ServerConfig{Listener: l, Handler: h, Files: files})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		conn := tls.Client(here, &tls.Config{RootCAs: pool, ServerName: "localhost", Time: func() time.Time { return now }})
		for range 4 {
			require.NoError(t, ask(conn))
			<-time.After(11 * time.Minute)
		}
		require.NoError(t, conn.Close())
		cancel()
		require.NoError(t, <-done)
	})
}

// ask makes a request over a connection, and reads all of the answer.
func ask(conn net.Conn) error {
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
	h, _ := published(t)
	registry := prometheus.NewRegistry()
	var log lockedBuffer
	address := serve(t, bundle.ServerConfig{
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
	h, _ := published(t)
	_, err := bundle.NewServer(bundle.ServerConfig{})
	require.EqualError(t, err, "a bundle endpoint needs a listener and a handler")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	_, err = bundle.NewServer(bundle.ServerConfig{Listener: listener, Handler: h})
	require.EqualError(t, err, "a bundle endpoint has one profile: https_spiffe with SVIDs, or https_web with certificate files or with ACME")
}

// pipeListener accepts nothing; it is for tests that look at what goes on beside connections.
type pipeListener struct{ closed chan struct{} }

func (l pipeListener) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l pipeListener) Addr() net.Addr            { return &net.TCPAddr{} }
func (l pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func TestCertificateFilesFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, home)
	certFile, keyFile, _ := webPair(t, dir, ca)
	var log lockedBuffer
	registry := prometheus.NewRegistry()
	files, err := bundle.NewCertificateFiles(bundle.CertificateFilesConfig{
		CertFile: certFile, KeyFile: keyFile, Registerer: registry, Logger: hclog.New(&hclog.LoggerOptions{Output: &log}),
	})
	require.NoError(t, err)
	clocktest.Run(t, func(t *testing.T) {
		h, _ := published(t)
		s, err := bundle.NewServer(bundle.ServerConfig{Listener: pipeListener{make(chan struct{})}, Handler: h, Files: files})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		presented := func() []byte { return bundle.PresentedBy(files).Certificate[0] }
		poll := func() {
			select {
			case <-time.After(11 * time.Second):
			case <-ctx.Done():
			}
			synctest.Wait()
		}

		before := presented()
		poll()
		require.Equal(t, before, presented())
		require.Empty(t, log.String())

		require.NoError(t, os.WriteFile(certFile, []byte("rubbish"), 0o600))
		poll()
		poll()
		require.Equal(t, before, presented(), "a broken pair keeps the old one")
		require.Equal(t, 1, strings.Count(log.String(), "bundle endpoint keeps its certificate"), "and says so once")
		require.Contains(t, log.String(), "tls: failed to find any PEM data in certificate input")

		require.NoError(t, os.Remove(keyFile))
		poll()
		require.Equal(t, before, presented())

		webPair(t, dir, ca)
		poll()
		require.NotEqual(t, before, presented())
		require.Contains(t, log.String(), "bundle endpoint has a new certificate")
		cancel()
		require.NoError(t, <-done)
	})
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP entente_bundle_endpoint_certificate_reloads_total Attempts to take a changed certificate file over, by result.
# TYPE entente_bundle_endpoint_certificate_reloads_total counter
entente_bundle_endpoint_certificate_reloads_total{result="failed"} 2
entente_bundle_endpoint_certificate_reloads_total{result="ok"} 1
`), "entente_bundle_endpoint_certificate_reloads_total"))
}

func TestCertificateFilesRefusals(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, _ := webPair(t, dir, newAuthority(t, home))
	other := filepath.Join(dir, "other.pem")
	_, err := bundle.NewCertificateFiles(bundle.CertificateFilesConfig{CertFile: certFile, KeyFile: other})
	require.EqualError(t, err, "read key_file: open "+other+": no such file or directory")
	key, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	require.NoError(t, err)
	write(t, other, "PRIVATE KEY", key)
	_, err = bundle.NewCertificateFiles(bundle.CertificateFilesConfig{CertFile: certFile, KeyFile: other})
	require.EqualError(t, err, "cert_file "+certFile+" with key_file "+other+": tls: private key does not match public key")
	_, err = bundle.NewCertificateFiles(bundle.CertificateFilesConfig{CertFile: certFile, KeyFile: keyFile})
	require.NoError(t, err)
}

var _ http.Handler = (*bundle.Handler)(nil)
