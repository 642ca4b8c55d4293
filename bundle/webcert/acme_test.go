package webcert_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/bundle/webcert/acmetest"
)

// acmePatience bounds waits for certificates.
const acmePatience = 90 * time.Second

// oneMember is the room of a cluster of one.
type oneMember struct {
	mu     sync.Mutex
	proofs map[string]string
	reads  int
}

func (o *oneMember) Acquire(context.Context, string) error { return nil }
func (o *oneMember) Release(context.Context, string) error { return nil }

func (o *oneMember) Present(_ context.Context, host, proof string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.proofs[host] = proof
	return nil
}

func (o *oneMember) Withdraw(ctx context.Context, host string) error { return o.Present(ctx, host, "") }

func (o *oneMember) Answer(_ context.Context, host string) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads++
	return o.proofs[host], nil
}

// webEndpoint is a bundle endpoint with certificates by ACME.
type webEndpoint struct {
	address  string
	dir      string
	acme     *webcert.ACME
	log      *bundletest.LockedBuffer
	registry *prometheus.Registry
	room     *oneMember
}

// serveACME serves under certificates from the server that directory and ca name.
func serveACME(
	t *testing.T,
	listener net.Listener,
	c webcert.ACMEConfig,
	ca string,
	prepare ...func(*webcert.ACME),
) *webEndpoint {
	t.Helper()
	e := &webEndpoint{
		address: listener.Addr().
			String(),
		dir: t.TempDir(), log: &bundletest.LockedBuffer{}, registry: prometheus.NewRegistry(),
		room: &oneMember{proofs: map[string]string{}},
	}
	c.Roots = x509.NewCertPool()
	require.True(t, c.Roots.AppendCertsFromPEM([]byte(ca)))
	c.Endpoint, c.Dir, c.Orders, c.Registerer = listener.Addr(), filepath.Join(e.dir, "acme"), e.room, e.registry
	c.Logger = hclog.New(&hclog.LoggerOptions{Output: e.log, Level: hclog.Debug})
	var err error
	e.acme, err = webcert.NewACME(c)
	require.NoError(t, err)
	for _, f := range prepare {
		f(e.acme)
	}
	h, _ := bundletest.NewHandler(t)
	s, err := endpoint.NewServer(endpoint.ServerConfig{Listener: listener, Handler: h, Web: e.acme, Logger: c.Logger})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server broke: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the endpoint:\n%s", e.log)
		}
	})
	return e
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

// present returns the certificate that is presented for host, verified by root.
func (e *webEndpoint) present(host, root string) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(root))
	conn, err := tls.Dial("tcp", e.address, &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// fetch fetches the home domain's bundle as any client does that has root as its web root.
func (e *webEndpoint) fetch(t *testing.T, host, root string) error {
	t.Helper()
	ep, err := endpoint.NewWeb(bundletest.Home, "https://"+host+"/", []byte(root))
	require.NoError(t, err)
	client := endpoint.NewClient(
		endpoint.ClientConfig{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, e.address)
		}},
	)
	_, err = client.Fetch(t.Context(), ep, "")
	return err
}

func contains(log *bundletest.LockedBuffer, parts ...string) error {
	for _, part := range parts {
		if !strings.Contains(log.String(), part) {
			return fmt.Errorf("the log does not contain %q", part)
		}
	}
	return nil
}

func soon(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.NewTimer(acmePatience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %s until %s: %v", acmePatience, what, err)
		}
	}
}

func TestACMEOrdersAndServes(t *testing.T) {
	listener := loopback(t)
	pebble, _ := acmetest.Start(
		t,
		acmetest.Options{
			Endpoint:        listener.Addr().String(),
			ExternalAccount: "kid-1:zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
		},
	)
	e := serveACME(t, listener, webcert.ACMEConfig{
		Directory: pebble.Directory, Email: "ops@example.org", Hosts: []string{"Orders.Example.org"},
		ExternalAccount: &webcert.ExternalAccount{
			KeyID: "kid-1",
			Key:   "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
		},
	}, pebble.CA)
	soon(t, "the bundle can be fetched", func() error { return e.fetch(t, "orders.example.org", pebble.Root) })
	require.Positive(t, e.room.reads, "the ACME server never looked")

	cert, err := e.present("orders.example.org", pebble.Root)
	require.NoError(t, err)
	require.Equal(t, []string{"orders.example.org"}, cert.DNSNames)
	families, err := e.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		switch f.GetName() {
		case "entente_bundle_endpoint_certificate_expiry_timestamp_seconds":
			require.EqualValues(t, cert.NotAfter.Unix(), f.GetMetric()[0].GetGauge().GetValue())
		case "entente_bundle_endpoint_acme_orders_total":
			require.Len(t, f.GetMetric(), 9)
		}
	}

	// A client without SNI gets the first; one with another name gets none, and nothing is logged.
	for _, test := range []struct{ name, want string }{{"", ""}, {"other.example.org", "tls: internal error"}} {
		unverified := &tls.Config{ServerName: test.name, InsecureSkipVerify: true} //nolint:gosec // compared below
		conn, err := tls.Dial("tcp", e.address, unverified)
		if test.want == "" {
			require.NoError(t, err)
			require.Equal(t, cert.SerialNumber, conn.ConnectionState().PeerCertificates[0].SerialNumber)
			require.NoError(t, conn.Close())
			continue
		}
		require.ErrorContains(t, err, test.want)
	}
	require.NotContains(t, e.log.String(), "other.example.org\" error")

	// A domain gets an endpoint host: it has a certificate without anything being started again, and loses it again.
	e.acme.SetHosts([]string{"own.example.org", "no host", "orders.example.org"})
	soon(
		t,
		"the endpoint host has a certificate",
		func() error { _, err := e.present("own.example.org", pebble.Root); return err },
	)
	e.acme.SetHosts(nil)
	soon(t, "the endpoint host has none any more", func() error {
		if _, err := e.present("own.example.org", pebble.Root); err == nil {
			return fmt.Errorf("it is still presented")
		}
		return nil
	})

	// Keys are this member's alone, and no other user can read them.
	keys := 0
	require.NoError(
		t,
		filepath.WalkDir(filepath.Join(e.dir, "acme"), func(path string, entry fs.DirEntry, err error) error {
			require.NoError(t, err)
			info, err := os.Stat(path)
			require.NoError(t, err)
			if entry.IsDir() {
				require.Equal(t, fs.FileMode(0o700), info.Mode().Perm(), path)
				return nil
			}
			require.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), path)
			if filepath.Ext(path) == ".key" {
				keys++
			}
			return nil
		}),
	)
	require.Equal(t, 3, keys, "an account and two names")
}

// The protocol of ACME servers is answered when it is all that a client offers, and only while a certificate is
// ordered.
func TestACMEProtocolIsForOrdersAlone(t *testing.T) {
	listener := loopback(t)
	e := serveACME(
		t,
		listener,
		webcert.ACMEConfig{Directory: "https://127.0.0.1:1/dir", Hosts: []string{"alone.example.org"}},
		unusedRoot(t),
	)
	dial := func(name string, protocols ...string) (*tls.Conn, error) {
		unverified := &tls.Config{ServerName: name, InsecureSkipVerify: true} //nolint:gosec // compared by the caller
		unverified.NextProtos = protocols
		return tls.Dial("tcp", e.address, unverified)
	}
	_, err := dial("alone.example.org", "acme-tls/1")
	require.ErrorContains(t, err, "internal error", "there is no order")
	require.NoError(t, e.room.Present(t.Context(), "alone.example.org", "token.thumbprint"))
	conn, err := dial("alone.example.org", "acme-tls/1")
	require.NoError(t, err)
	require.Equal(t, "acme-tls/1", conn.ConnectionState().NegotiatedProtocol)
	require.Equal(t, []string{"alone.example.org"}, conn.ConnectionState().PeerCertificates[0].DNSNames)
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "such a connection serves nothing")
	require.NoError(t, conn.Close())
	_, err = dial("alone.example.org", "h2", "acme-tls/1")
	require.ErrorContains(t, err, "internal error", "a browser is shown no challenge")
	_, err = dial("other.example.org", "acme-tls/1")
	require.ErrorContains(t, err, "internal error")
}

// unusedRoot returns a root that signed nothing.
func unusedRoot(t *testing.T) string {
	t.Helper()
	_, _, roots := bundletest.WritePair(t, t.TempDir(), bundletest.NewAuthority(t, bundletest.Home))
	return string(roots)
}

func TestACMERenewsWithoutInterruption(t *testing.T) {
	listener := loopback(t)
	pebble, _ := acmetest.Start(t, acmetest.Options{Endpoint: listener.Addr().String(), ValidSeconds: 18})
	e := serveACME(t, listener, webcert.ACMEConfig{
		Directory: pebble.Directory, Hosts: []string{"renews.example.org"}, RenewCheck: 200 * time.Millisecond,
	}, pebble.CA, webcert.WithoutRenewalInfo) // Pebble's suggestion is made for months, and would be any moment
	var first *x509.Certificate
	soon(
		t,
		"there is a certificate",
		func() (err error) { first, err = e.present("renews.example.org", pebble.Root); return err },
	)
	soon(t, "it is renewed", func() error {
		now, err := e.present("renews.example.org", pebble.Root)
		require.NoError(t, err, "a client noticed")
		if now.SerialNumber.Cmp(first.SerialNumber) == 0 {
			return fmt.Errorf("it is the first one still")
		}
		return nil
	})
	require.GreaterOrEqual(t, testutil.ToFloat64(webcert.ACMEOrders(e.acme, "ok")), 2.0)
}

func TestACMEServerUnreachableAtStart(t *testing.T) {
	listener, reserved := loopback(t), loopback(t)
	at := reserved.Addr().String()
	require.NoError(t, reserved.Close())
	options := acmetest.Options{
		Endpoint:    listener.Addr().String(),
		Listen:      at,
		Certificate: filepath.Join(t.TempDir(), "acme.pem"),
	}
	pebble, stop := acmetest.Start(t, options) // who verifies it has to know its root before
	stop()
	e := serveACME(
		t,
		listener,
		webcert.ACMEConfig{Directory: pebble.Directory, Hosts: []string{"away.example.org"}},
		pebble.CA,
	)
	soon(t, "the log has the error", func() error {
		return contains(
			e.log,
			"bundle endpoint has no certificate yet: none could be had",
			"reason=unreachable",
			"connection refused",
		)
	})
	_, err := e.present("away.example.org", pebble.Root)
	require.ErrorContains(t, err, "internal error")
	require.NoError(t, contains(e.log, "there is no certificate for away.example.org yet (unreachable)"))
	pebble, _ = acmetest.Start(t, options)
	soon(t, "it heals by itself", func() error { _, err := e.present("away.example.org", pebble.Root); return err })
}

func TestACMERefusalIsShown(t *testing.T) {
	listener := loopback(t)
	pebble, _ := acmetest.Start(t, acmetest.Options{Endpoint: listener.Addr().String(), Block: "blocked.example.org"})
	e := serveACME(
		t,
		listener,
		webcert.ACMEConfig{Directory: pebble.Directory, Hosts: []string{"blocked.example.org"}},
		pebble.CA,
	)
	soon(t, "the log shows the reason", func() error {
		return contains(e.log, "host=blocked.example.org", "reason=refused", "issuance is forbidden by policy")
	})
	require.InDelta(t, 1, testutil.ToFloat64(webcert.ACMEOrders(e.acme, "refused")), 0)
}

// The name leads somewhere else: what the ACME server finds there is no answer of this cluster.
func TestACMEServerReachesAnotherServer(t *testing.T) {
	listener := loopback(t)
	h, _ := bundletest.NewHandler(t)
	elsewhere, _ := bundletest.ServeWeb(t, h)
	pebble, _ := acmetest.Start(t, acmetest.Options{Endpoint: elsewhere})
	e := serveACME(
		t,
		listener,
		webcert.ACMEConfig{Directory: pebble.Directory, Hosts: []string{"elsewhere.example.org"}},
		pebble.CA,
	)
	soon(t, "the log shows the reason", func() error {
		return contains(e.log, "host=elsewhere.example.org", "reason=not_validated")
	})
}

func TestACMERefusedConfigurations(t *testing.T) {
	good := func() webcert.ACMEConfig {
		return webcert.ACMEConfig{
			Directory: webcert.DefaultACMEDirectory, Hosts: []string{"b.example.org"}, Dir: t.TempDir(),
			Endpoint: &net.TCPAddr{Port: 7443}, Orders: &oneMember{},
		}
	}
	for _, c := range []struct {
		name   string
		change func(*webcert.ACMEConfig)
		want   string
	}{
		{"no host", func(c *webcert.ACMEConfig) { c.Hosts = nil },
			"ACME needs 1 to 100 host names, a folder, the endpoint's address and a room for orders"},
		{"a wildcard", func(c *webcert.ACMEConfig) { c.Hosts = []string{"*.example.org"} },
			`"*.example.org" is not a host name; ACME gives certificates for names such as "bundle.example.org"`},
		{"plain HTTP", func(c *webcert.ACMEConfig) { c.Directory = "http://acme.example.org/" },
			`"http://acme.example.org/" is not the URL of an ACME directory; write one such as ` +
				`"https://acme-v02.api.letsencrypt.org/directory"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := good()
			c.change(&config)
			_, err := webcert.NewACME(config)
			require.EqualError(t, err, c.want)
		})
	}
}
