package endpoint_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/internal/egress/proxytest"
)

// webPeer serves a bundle as https_web for a host name, with curves of its own, and reports connections that were
// opened.
func webPeer(
	t *testing.T, host string, curves []tls.CurveID, head func(http.Header),
) (peer, endpoint.Remote, *[]net.Addr, endpoint.ClientConfig) {
	t.Helper()
	document := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home)).Marshal()
	p := newPeer(t, func(ca bundletest.Authority) *tls.Certificate {
		template := bundletest.SVIDTemplate(spiffeid.RequireFromString("spiffe://eu.example.org/web"))
		template.URIs, template.DNSNames = nil, []string{host}
		return ca.Sign(t, template)
	}, func(w http.ResponseWriter, _ *http.Request) {
		head(w.Header())
		_, _ = w.Write(document)
	})
	p.Close()
	// The same server again, with the curves.
	config := p.TLS.Clone()
	config.CurvePreferences = curves
	server := httptest.NewUnstartedServer(p.Config.Handler)
	server.TLS, server.Config.ErrorLog = config, discardLog()
	server.StartTLS()
	t.Cleanup(server.Close)
	p.Server = server
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	e, err := endpoint.NewWeb(bundletest.Home, "https://"+net.JoinHostPort(host, port)+"/", p.roots)
	require.NoError(t, err)
	var dialled []net.Addr
	return p, e, &dialled, endpoint.ClientConfig{
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			name, _, err := net.SplitHostPort(address)
			require.NoError(t, err)
			require.Equal(t, host, name, "the name is looked up as it stands")
			dialled = append(dialled, server.Listener.Addr())
			return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
}

// TestEndpointsInTheField: endpoints as people run them, each of which a fetch reads.
func TestEndpointsInTheField(t *testing.T) {
	hybrids := []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}
	for _, test := range []struct {
		name, host  string
		curves      []tls.CurveID
		coding      string
		connections int
	}{
		{"ordinary", "peer.example.org", nil, "", 1},
		{"an underscore in the host name", "stack_peer_1.example.org", nil, "", 1},
		{"a host name that begins with an underscore", "_peer", nil, "", 1},
		{"post-quantum key agreement alone", "peer.example.org", hybrids[:1], "", 2},
		{"another hybrid alone", "peer.example.org", hybrids[1:2], "", 2},
		{"the largest hybrid alone", "peer.example.org", hybrids[2:], "", 2},
		{"hybrids and others", "peer.example.org", append([]tls.CurveID{tls.X25519}, hybrids...), "", 1},
		{"no content coding", "peer.example.org", nil, "identity", 1},
		{"no content coding, in capitals", "peer.example.org", nil, "Identity", 1},
		{"no content coding, in all capitals", "peer.example.org", nil, "IDENTITY", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, e, dialled, config := webPeer(t, test.host, test.curves, func(h http.Header) {
				if test.coding != "" {
					h.Set("Content-Encoding", test.coding)
				}
			})
			got, err := endpoint.NewClient(config).Fetch(t.Context(), e, "")
			require.NoError(t, err)
			require.Len(t, got.Bundle.X509Authorities(), 1)
			require.Len(t, *dialled, test.connections)
		})
	}
}

// TestRefusedHandshakeIsTriedOnceMore: an endpoint without any key agreement in common is refused after two
// connections.
func TestRefusedHandshakeIsTriedOnceMore(t *testing.T) {
	_, e, dialled, config := webPeer(t, "peer.example.org", []tls.CurveID{tls.CurveP521}, func(http.Header) {})
	_, err := endpoint.NewClient(config).Fetch(t.Context(), e, "")
	require.Equal(t, "tls", bundle.Reason(err), "%v", err)
	require.Len(t, *dialled, 2)
}

// TestCodedAnswerIsRefused: any other coding is not read.
func TestCodedAnswerIsRefused(t *testing.T) {
	_, e, _, config := webPeer(t, "peer.example.org", nil, func(h http.Header) { h.Set("Content-Encoding", "Brotli") })
	_, err := endpoint.NewClient(config).Fetch(t.Context(), e, "")
	require.ErrorIs(t, err, endpoint.ErrEncoded)
	require.ErrorContains(t, err, `Content-Encoding is "Brotli"`)
}

// TestObjectOfAStore: an object of a store is fetched by https_web, whatever the store says of its type.
func TestObjectOfAStore(t *testing.T) {
	const etag = `"9b2cf535f27731c974343645a3985328"`
	_, e, _, config := webPeer(t, "bundles.s3.example.org", nil, func(h http.Header) {
		h.Set("Content-Type", "binary/octet-stream")
		h.Set("ETag", etag)
		h.Set("Accept-Ranges", "bytes")
		h.Set("Server", "AmazonS3")
	})
	got, err := endpoint.NewClient(config).Fetch(t.Context(), e, "")
	require.NoError(t, err)
	require.Equal(t, etag, got.ETag)
	require.Len(t, got.Bundle.X509Authorities(), 1)
}

// TestFetchThroughAProxy: TLS is between this client and the endpoint, so that a proxy changes nothing but the way.
func TestFetchThroughAProxy(t *testing.T) {
	p, e, _, config := webPeer(t, "peer.invalid", nil, func(http.Header) {})
	address := strings.TrimSuffix(strings.TrimPrefix(e.URL(), "https://"), "/")
	proxy := proxytest.New(t, map[string]string{address: p.Server.Listener.Addr().String()})
	route, err := egress.ParseRoute(proxy.URL)
	require.NoError(t, err)
	config.Dial = route.DialContext
	got, err := endpoint.NewClient(config).Fetch(t.Context(), e, "")
	require.NoError(t, err)
	require.Len(t, got.Bundle.X509Authorities(), 1)
	require.Equal(t, []string{address}, proxy.Connected())

	proxy.Refuse(http.StatusForbidden)
	_, err = endpoint.NewClient(config).Fetch(t.Context(), e, "")
	require.Equal(t, "network", bundle.Reason(err))
	require.ErrorContains(t, err, "the egress proxy does not connect to "+address)
}
