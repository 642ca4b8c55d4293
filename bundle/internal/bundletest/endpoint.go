package bundletest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/webcert"
)

// LockedBuffer is a log that is read while it is written.
type LockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *LockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *LockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Serve runs a server until the test ends, and returns its address.
func Serve(t testing.TB, c endpoint.ServerConfig) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c.Listener = listener
	s, err := endpoint.NewServer(c)
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

// WritePair writes a certificate for localhost and its key, and returns the files' names and the root in PEM.
func WritePair(t testing.TB, dir string, ca Authority) (certFile, keyFile string, roots []byte) {
	t.Helper()
	template := SVIDTemplate(spiffeid.RequireFromString("spiffe://eu.example.org/web"))
	template.URIs = nil
	cert := ca.Sign(t, template)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	WritePEM(t, certFile, "CERTIFICATE", cert.Certificate[0])
	WritePEM(t, keyFile, "PRIVATE KEY", key)
	return certFile, keyFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw})
}

// WritePEM writes one PEM block to a file.
func WritePEM(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// ServeWeb serves a handler with a web certificate for localhost. It returns the address, and the root in PEM.
func ServeWeb(t testing.TB, h *endpoint.Handler) (address string, roots []byte) {
	t.Helper()
	certFile, keyFile, roots := WritePair(t, t.TempDir(), NewAuthority(t, Home))
	files, err := webcert.NewCertificateFiles(webcert.CertificateFilesConfig{CertFile: certFile, KeyFile: keyFile})
	require.NoError(t, err)
	return Serve(t, endpoint.ServerConfig{Handler: h, Web: files}), roots
}

// LocalhostURL returns the URL of a path at localhost and the port of the address.
func LocalhostURL(address, path string) string {
	_, port, _ := net.SplitHostPort(address)
	return "https://localhost:" + port + path
}

// NewHandler makes a handler with three hosted bundles, the last at a host of its own, and one foreign.
func NewHandler(t testing.TB) (*endpoint.Handler, map[string]*bundle.Bundle) {
	t.Helper()
	h, err := endpoint.NewHandler(nil)
	require.NoError(t, err)
	bundles := make(map[string]*bundle.Bundle)
	for i, name := range []string{"eu.example.org", "shop.example", "bank.example", "us.example.org"} {
		td := spiffeid.RequireTrustDomainFromString(name)
		bundles[name] = NewBundle(t, td, uint64(i+1), NewAuthority(t, td))
	}
	require.NoError(t, h.Publish(endpoint.Publication{
		Home: Home,
		Hosted: []endpoint.Hosted{
			{Bundle: bundles["eu.example.org"]}, {Bundle: bundles["shop.example"]},
			{Bundle: bundles["bank.example"], Host: "Bundle.Bank.Example"},
		},
		Attested: MapEntries(t, bundles["us.example.org"]),
	}))
	return h, bundles
}

// MapEntries returns the entries of bundles in a map.
func MapEntries(t testing.TB, bundles ...*bundle.Bundle) (all []bundle.MapEntry) {
	t.Helper()
	for _, b := range bundles {
		v, err := bundle.NewMapEntry(b)
		require.NoError(t, err)
		all = append(all, v)
	}
	return all
}

// EndpointID is the SPIFFE ID of a bundle endpoint of [Home].
var EndpointID = spiffeid.RequireFromString("spiffe://eu.example.org/entente/bundle-endpoint")

// SilentListener accepts nothing until it is closed.
type SilentListener struct{ Closed chan struct{} }

// NewSilentListener returns an open listener.
func NewSilentListener() SilentListener { return SilentListener{make(chan struct{})} }

// Accept blocks until the listener is closed.
func (l SilentListener) Accept() (net.Conn, error) { <-l.Closed; return nil, net.ErrClosed }

// Addr returns an empty address.
func (l SilentListener) Addr() net.Addr { return &net.TCPAddr{} }

// Close ends Accept. It can be called more than once.
func (l SilentListener) Close() error {
	select {
	case <-l.Closed:
	default:
		close(l.Closed)
	}
	return nil
}
