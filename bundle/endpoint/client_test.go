package endpoint_test

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// peer is a TLS server that a test lets misbehave.
type peer struct {
	*httptest.Server
	ca    bundletest.Authority
	roots []byte
}

func newPeer(t testing.TB, cert func(bundletest.Authority) *tls.Certificate, handler http.HandlerFunc) peer {
	t.Helper()
	ca := bundletest.NewAuthority(t, bundletest.Home)
	p := peer{ca: ca, roots: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw})}
	p.Server = httptest.NewUnstartedServer(handler)
	p.TLS = &tls.Config{Certificates: []tls.Certificate{*cert(ca)}}
	p.Config.ErrorLog = discardLog()
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

func (p peer) url(path string) string {
	return bundletest.LocalhostURL(p.Listener.Addr().String(), path)
}

func TestFetch(t *testing.T) {
	t.Run("https_web", func(t *testing.T) {
		h, bundles := bundletest.NewHandler(t)
		e := ownEndpoint(t, h, "/")
		client := endpoint.NewClient(endpoint.ClientConfig{})
		got, err := client.Fetch(t.Context(), e, "")
		require.NoError(t, err)
		require.True(t, got.Bundle.Equal(bundles["eu.example.org"]))
		require.Equal(t, len(got.Bundle.Marshal()), got.Size)

		again, err := client.Fetch(t.Context(), e, got.ETag)
		require.NoError(t, err)
		require.True(t, again.NotModified)
		require.Nil(t, again.Bundle)
	})
	t.Run("https_spiffe", func(t *testing.T) {
		address, b := spiffeServer(t)
		e, err := endpoint.NewSPIFFE(bundletest.Home, "https://"+address+"/", bundletest.EndpointID)
		require.NoError(t, err)
		require.True(t, e.SelfServing())
		got, err := endpoint.NewClient(endpoint.ClientConfig{Bundles: b}).Fetch(t.Context(), e, "")
		require.NoError(t, err)
		require.True(t, got.Bundle.Equal(b))
	})
}

func TestWeFetchFromGoSPIFFE(t *testing.T) {
	ca := bundletest.NewAuthority(t, bundletest.Home)
	theirs := spiffebundle.FromX509Authorities(bundletest.Home, []*x509.Certificate{ca.Cert})
	require.NoError(t, theirs.AddJWTAuthority("k", &bundletest.NewKey(t).PublicKey))
	theirs.SetSequenceNumber(9)
	theirs.SetRefreshHint(time.Minute)
	handler, err := federation.NewHandler(bundletest.Home, theirs)
	require.NoError(t, err)
	p := newPeer(
		t,
		func(bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
		handler.ServeHTTP,
	)

	spiffe, err := endpoint.NewSPIFFE(bundletest.Home, p.url("/"), bundletest.EndpointID)
	require.NoError(t, err)
	web, err := endpoint.NewWeb(
		bundletest.Home,
		p.url("/"),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw}),
	)
	require.NoError(t, err)
	for _, e := range []endpoint.Remote{spiffe, web} {
		t.Run(e.Profile().String(), func(t *testing.T) {
			got, err := endpoint.NewClient(endpoint.ClientConfig{Bundles: bundletest.NewBundle(t, bundletest.Home, 1,
				ca)}).
				Fetch(t.Context(), e, "")
			require.NoError(t, err)
			require.Empty(t, got.ETag, "go-spiffe sends none")
			require.Equal(t, theirs.X509Authorities(), got.Bundle.X509Authorities())
			require.Equal(t, theirs.JWTAuthorities(), got.Bundle.JWTAuthorities())
			n, _ := got.Bundle.Sequence()
			require.Equal(t, uint64(9), n)
		})
	}
}

// TestHostileEndpoint has a line for each guard of the client. Every endpoint proves who it is, and then misbehaves.
func TestHostileEndpoint(t *testing.T) {
	document := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home)).Marshal()
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		etag    string
		reason  string
		text    string
	}{
		{"an error with a good document", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write(document)
		}, "", "bad_status", "the answer is not 200 OK: it is 500 Internal Server Error"},
		{"another success with a good document", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			_, _ = w.Write(document)
		}, "", "bad_status", "the answer is not 200 OK: it is 202 Accepted"},
		{"304 that was not requested", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotModified)
		}, "", "unasked_304", "the endpoint answered 304 to a request that named no ETag"},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
			"", "malformed", "bundle document of eu.example.org: the document is malformed: it is not JSON, byte 1: " +
				"invalid character '<' looking for beginning of value"},
		{"an empty object", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) },
			"", "no_keys", "bundle document of eu.example.org: the document has no list of keys: keys must be " +
				"present; an empty list means that no key is trusted"},
		{"too large, as announced", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1048577")
		}, "", "too_large", "the document is larger than allowed: it has 1048577 bytes, at most 1048576 are allowed"},
		{"too large, without an announcement", func(w http.ResponseWriter, _ *http.Request) {
			for range 1<<20/1024 + 64 {
				if _, err := w.Write([]byte(strings.Repeat(" ", 1024))); err != nil {
					return
				}
			}
		}, "", "too_large", "the document is larger than allowed: at most 1048576 bytes are allowed"},
		{"compressed", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "" {
				t.Errorf("the client accepts %s", r.Header.Get("Accept-Encoding"))
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(make([]byte, 1<<20))
			_ = z.Close()
		}, "", "encoded", `the answer is compressed, which was not requested: Content-Encoding is "gzip"`},
		{"a drip", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[`))
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
					_, _ = w.Write([]byte(" "))
					_ = http.NewResponseController(w).Flush()
				}
			}
		}, "", "timeout", "the endpoint took too long: no complete answer within 1s"},
		{"silence", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			"", "timeout", "the endpoint took too long: no complete answer within 1s"},
		{"an endless header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 32<<10))
		},
			"", "too_large", "the document is larger than allowed: the header of the answer has more than 16384 bytes"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"keys":[]}`))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "", "network", "the endpoint cannot be reached: read the document: unexpected EOF"},
		{"a redirect to plain HTTP", redirectTo("http://localhost/"), "", "bad_redirect",
			`the endpoint redirects to where a bundle may not come from: the URL is not a valid bundle endpoint URL: ` +
				`"http://localhost/" has scheme "http"; https is needed`},
		{"a redirect with a password", redirectTo("https://a:b@localhost/"), "", "bad_redirect",
			"the endpoint redirects to where a bundle may not come from: the URL is not a valid bundle endpoint URL: " +
				"it has user information; an endpoint is read by everybody"},
		{"a redirect to the metadata service", redirectTo("https://169.254.169.254/latest"), "", "bad_redirect",
			"the endpoint redirects to where a bundle may not come from: address not allowed: 169.254.169.254 is a " +
				"link-local address, which only an operator can give"},
		{"a redirect to a file", redirectTo("file:///etc/passwd"), "", "bad_redirect",
			`the endpoint redirects to where a bundle may not come from: the URL is not a valid bundle endpoint URL: ` +
				`"file:///etc/passwd" has scheme "file"; https is needed`},
		{"a redirect to nowhere", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusFound) }, "",
			"bad_redirect",
			"the endpoint redirects to where a bundle may not come from: the answer 302 has a Location of 0 bytes"},
		{"a circle", redirectTo("/again"), "", "too_many_redirects",
			"the endpoint redirects too often: more than 3 times, last to "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(
				t,
				func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
				test.handler,
			)
			e, err := endpoint.NewSPIFFE(bundletest.Home, p.url("/"), bundletest.EndpointID)
			require.NoError(t, err)
			limit := time.Hour // only answers that never end run into a limit
			if test.reason == "timeout" {
				limit = time.Second
			}
			client := endpoint.NewClient(endpoint.ClientConfig{
				Bundles: bundletest.NewBundle(t, bundletest.Home, 1, p.ca), Timeout: limit,
			})
			_, err = client.Fetch(t.Context(), e, test.etag)
			require.ErrorContains(t, err, "fetch bundle of eu.example.org from "+p.url("/")+": "+test.text)
			require.Equal(t, test.reason, bundle.Reason(err))
		})
	}
}

func redirectTo(target string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target, http.StatusTemporaryRedirect)
	}
}

func TestRedirectsStayInTheProfile(t *testing.T) {
	document := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home)).Marshal()
	target := newPeer(
		t,
		func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, "spiffe://eu.example.org/other") },
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(document) },
	)
	hits := 0
	source := newPeer(
		t,
		func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
		func(w http.ResponseWriter, r *http.Request) {
			hits++
			switch r.URL.Path {
			case "/moved":
				http.Redirect(w, r, "/here", http.StatusMovedPermanently)
			case "/here":
				_, _ = w.Write(document)
			case "/away":
				http.Redirect(w, r, target.url("/"), http.StatusFound)
			}
		},
	)
	client := endpoint.NewClient(
		endpoint.ClientConfig{Bundles: bundletest.NewBundle(t, bundletest.Home, 1, source.ca, target.ca)},
	)
	e, err := endpoint.NewSPIFFE(bundletest.Home, source.url("/moved"), bundletest.EndpointID)
	require.NoError(t, err)
	for range 2 {
		got, err := client.Fetch(t.Context(), e, "")
		require.NoError(t, err)
		require.Equal(t, source.url("/here"), got.URL)
	}
	require.Equal(t, 4, hits, "even a permanent redirect is not remembered")

	e, err = endpoint.NewSPIFFE(bundletest.Home, source.url("/away"), bundletest.EndpointID)
	require.NoError(t, err)
	_, err = client.Fetch(t.Context(), e, "")
	require.EqualError(t, err, "fetch bundle of eu.example.org from "+source.url("/away")+
		": the endpoint has another SPIFFE ID than expected: it is spiffe://eu.example.org/other, expected is "+
		"spiffe://eu.example.org/entente/bundle-endpoint")
}

func TestFetchProvesTheEndpoint(t *testing.T) {
	document := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home)).Marshal()
	serveDocument := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(document) }
	svid := func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) }
	p := newPeer(t, svid, serveDocument)
	stranger := bundletest.NewAuthority(t, bundletest.Home)
	spiffe := func(url string, id string) endpoint.Remote {
		e, err := endpoint.NewSPIFFE(bundletest.Home, url, spiffeid.RequireFromString(id))
		require.NoError(t, err)
		return e
	}
	web := func(url string, roots []byte) endpoint.Remote {
		e, err := endpoint.NewWeb(bundletest.Home, url, roots)
		require.NoError(t, err)
		return e
	}
	strangerPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.Cert.Raw})
	plain := httptest.NewServer(http.HandlerFunc(serveDocument))
	t.Cleanup(plain.Close)
	old := newPeer(
		t,
		func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
		serveDocument,
	)
	old.TLS.MinVersion, old.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	site := newPeer(t, func(ca bundletest.Authority) *tls.Certificate { // good for its host name, and no X509-SVID
		template := bundletest.SVIDTemplate(bundletest.EndpointID)
		template.URIs = nil
		return ca.Sign(t, template)
	}, serveDocument)
	named := newPeer(t, func(ca bundletest.Authority) *tls.Certificate {
		template := bundletest.SVIDTemplate(bundletest.EndpointID)
		template.URIs = nil
		template.Subject.CommonName, template.DNSNames, template.IPAddresses = "127.0.0.1", nil, nil
		return ca.Sign(t, template)
	}, serveDocument)

	for _, test := range []struct {
		name, reason, text string
		endpoint           endpoint.Remote
		bundles            *bundle.Bundle
	}{
		{"the right ID", "ok", "", spiffe(p.url("/"), bundletest.EndpointID.String()), bundletest.NewBundle(t,
			bundletest.Home, 1, p.ca)},
		{"another ID", "unexpected_endpoint_id", "expected is spiffe://eu.example.org/x", spiffe(p.url("/"),
			"spiffe://eu.example.org/x"), bundletest.NewBundle(t, bundletest.Home, 1, p.ca)},
		{"another authority", "untrusted_svid", "does not lead to an authority of its trust domain", spiffe(p.url("/"),
			bundletest.EndpointID.String()), bundletest.NewBundle(t, bundletest.Home, 1, stranger)},
		{"every key revoked", "untrusted_svid", "does not lead to an authority of its trust domain", spiffe(p.url("/"),
			bundletest.EndpointID.String()), bundletest.NewBundle(t, bundletest.Home, 1)},
		{"another domain's bundle", "no_bundle", "this is the bundle of us.example.org, not of eu.example.org",
			spiffe(p.url("/"), bundletest.EndpointID.String()), bundletest.NewBundle(t, bundletest.Foreign, 1, p.ca)},
		{"a web certificate where an SVID is expected", "other_profile", "it presents a web certificate for its " +
			"host, and no X509-SVID", spiffe(site.url("/"), bundletest.EndpointID.String()), bundletest.NewBundle(t,
			bundletest.Home, 1, site.ca)},
		{"the same where it is expected", "ok", "", web(site.url("/"), site.roots), nil},
		{"a host name in the common name alone", "host_name", "it names no host, and \"127.0.0.1\" is needed",
			web(named.URL, named.roots), nil},
		{"private roots", "ok", "", web(p.url("/"), p.roots), nil},
		{"private roots are the only ones", "web_certificate", "certificate signed by unknown authority",
			web(site.url("/"), strangerPEM), nil},
		{"the system's roots", "web_certificate", "certificate signed by unknown authority", web(site.url("/"), nil),
			nil},
		{"another host name", "host_name", "the endpoint's certificate is for another host name: it is for " +
			"\"localhost\", 127.0.0.1, not for \"127.0.0.2\"",
			web(strings.Replace(site.URL, "127.0.0.1", "127.0.0.2", 1), site.roots), nil},
		{"no TLS", "tls", "plain HTTP is served there: tls: first record does not look like a TLS handshake",
			web(strings.Replace(plain.URL, "http:", "https:", 1), nil), nil},
		{"TLS 1.1", "tls", "tls: protocol version not supported", web(old.url("/"), old.roots), nil},
		{"no listener", "network", "connection refused", web("https://"+free.Addr().String(), nil), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := endpoint.ClientConfig{}
			if test.bundles != nil {
				config.Bundles = test.bundles
			}
			if test.name == "another host name" {
				config.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, site.Listener.Addr().String())
				}
			}
			_, err := endpoint.NewClient(config).Fetch(t.Context(), test.endpoint, "")
			require.Equal(t, test.reason, bundle.Reason(err), "%v", err)
			if test.text != "" {
				require.ErrorContains(t, err, test.text)
			}
		})
	}
}

func TestFetchEndsWithItsCaller(t *testing.T) {
	entered := make(chan struct{})
	p := newPeer(
		t,
		func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
		func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		},
	)
	e, err := endpoint.NewWeb(bundletest.Home, p.url("/"), p.roots)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	_, err = endpoint.NewClient(endpoint.ClientConfig{}).Fetch(ctx, e, "")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "canceled", bundle.Reason(err))
}

func TestOnlyWellFormedETagsAreKept(t *testing.T) {
	for _, test := range []struct{ sent, kept string }{
		{`"a"`, `"a"`}, {`W/"a"`, `W/"a"`}, {`a`, ``}, {`"a`, ``}, {`"a"b"`, ``}, {`"` + strings.Repeat("a", 255) + `"`,
			``}, {``, ``},
	} {
		p := newPeer(
			t,
			func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
			func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("ETag", test.sent)
				_, _ = fmt.Fprint(w, `{"keys":[]}`)
			},
		)
		e, err := endpoint.NewWeb(bundletest.Home, p.url("/"), p.roots)
		require.NoError(t, err)
		got, err := endpoint.NewClient(endpoint.ClientConfig{}).Fetch(t.Context(), e, "")
		require.NoError(t, err)
		require.Equal(t, test.kept, got.ETag)
	}
}

func TestNoProxyFromTheEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("NO_PROXY", "")
	address, b := spiffeServer(t)
	e, err := endpoint.NewSPIFFE(bundletest.Home, "https://"+address+"/", bundletest.EndpointID)
	require.NoError(t, err)
	_, err = endpoint.NewClient(endpoint.ClientConfig{Bundles: b}).Fetch(t.Context(), e, "")
	require.NoError(t, err)
}
