package endpoint_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

func request(method, url, serverName string, header ...string) *http.Request {
	r := httptest.NewRequest(method, url, nil)
	r.TLS = &tls.ConnectionState{ServerName: serverName}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func TestHandler(t *testing.T) {
	h, bundles := bundletest.NewHandler(t)
	document := func(name string) string { return string(bundles[name].Marshal()) }
	everything, err := bundle.MarshalMap(
		[]*bundle.Bundle{
			bundles["eu.example.org"],
			bundles["shop.example"],
			bundles["bank.example"],
			bundles["us.example.org"],
		},
	)
	require.NoError(t, err)

	for _, test := range []struct {
		name, method, url, sni string
		code                   int
		body                   string
	}{
		{"home", "GET", "https://eu.test:7443/", "eu.test", 200, document("eu.example.org")},
		{"home, with a query", "GET", "https://eu.test/?x=1", "eu.test", 200, document("eu.example.org")},
		{"home, by address", "GET", "https://127.0.0.1:7443/", "", 200, document("eu.example.org")},
		{"home, by IPv6 address", "GET", "https://[::1]/", "", 200, document("eu.example.org")},
		{"home, without SNI", "GET", "https://eu.test/", "", 200, document("eu.example.org")},
		{"a hosted domain", "GET", "https://eu.test/bundles/shop.example", "eu.test", 200, document("shop.example")},
		{"the home domain by name", "GET", "https://eu.test/bundles/eu.example.org", "eu.test", 200,
			document("eu.example.org")},
		{"a domain with its own host is here too", "GET", "https://eu.test/bundles/bank.example", "eu.test", 200,
			document("bank.example")},
		{"the map", "GET", "https://eu.test/bundles", "eu.test", 200, string(everything)},
		{"a foreign bundle that a hub attests to", "GET", "https://eu.test/bundles/us.example.org", "eu.test", 200,
			document("us.example.org")},
		{"another foreign domain", "GET", "https://eu.test/bundles/asia.example.org", "eu.test", 404,
			"no bundle is published at \"/bundles/asia.example.org\"\n"},
		{"other forms of a foreign bundle", "GET", "https://eu.test/bundles/us.example.org/pem", "eu.test", 404,
			"no bundle is published at \"/bundles/us.example.org/pem\"\n"},
		{"a form that is none", "GET", "https://eu.test/bundles/shop.example/der", "eu.test", 404,
			"no bundle is published at \"/bundles/shop.example/der\"\n"},
		{"own host has no other forms", "GET", "https://bundle.bank.example/bundles/bank.example/pem",
			"bundle.bank.example", 404, "no bundle is published at \"/bundles/bank.example/pem\"\n"},
		{"unknown path", "GET", "https://eu.test/bundle.json", "eu.test", 404,
			"no bundle is published at \"/bundle.json\"\n"},
		{"trailing slash", "GET", "https://eu.test/bundles/", "eu.test", 404,
			"no bundle is published at \"/bundles/\"\n"},
		{"dots", "GET", "https://eu.test/bundles/../", "eu.test", 404, "no bundle is published at \"/bundles/../\"\n"},
		{"own host", "GET", "https://bundle.bank.example:7443/", "bundle.bank.example", 200, document("bank.example")},
		{"own host, in another case", "GET", "https://BUNDLE.bank.example./", "bundle.bank.example", 200,
			document("bank.example")},
		{"own host has no other path", "GET", "https://bundle.bank.example/bundles", "bundle.bank.example", 404,
			"no bundle is published at \"/bundles\"\n"},
		{"own host does not show others", "GET", "https://bundle.bank.example/bundles/eu.example.org",
			"bundle.bank.example", 404,
			"no bundle is published at \"/bundles/eu.example.org\"\n"},
		{"own host over another's connection", "GET", "https://bundle.bank.example/", "eu.test", 421,
			"this connection was opened for another host name; open one for \"bundle.bank.example\"\n"},
		{"own host without SNI", "GET", "https://bundle.bank.example/", "", 421,
			"this connection was opened for another host name; open one for \"bundle.bank.example\"\n"},
		{"another host over own connection", "GET", "https://eu.test/", "bundle.bank.example", 421,
			"this connection was opened for another host name; open one for \"eu.test\"\n"},
		{"POST", "POST", "https://eu.test/", "eu.test", 405, "a bundle endpoint is read with GET\n"},
		{"OPTIONS", "OPTIONS", "https://eu.test/", "eu.test", 405, "a bundle endpoint is read with GET\n"},
		{"HEAD", "HEAD", "https://eu.test/", "eu.test", 200, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request(test.method, test.url, test.sni))
			require.Equal(t, test.code, w.Code)
			require.Equal(t, test.body, w.Body.String())
			switch test.code {
			case 200:
				require.Equal(t, "application/json", w.Header().Get("Content-Type"))
				require.Equal(t, "no-cache", w.Header().Get("Cache-Control"))
				require.Regexp(t, `^"[\w-]{43}"$`, w.Header().Get("ETag"))
			case 405:
				require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
			default:
				require.Empty(t, w.Header().Get("ETag"))
			}
		})
	}
}

// TestHandlerForms: the other forms of a hosted bundle are served as the document is.
func TestHandlerForms(t *testing.T) {
	h, bundles := bundletest.NewHandler(t)
	for format, contentType := range map[bundle.Format]string{
		bundle.FormatPEM: "application/x-pem-file", bundle.FormatJWKS: "application/jwk-set+json",
	} {
		url := "https://eu.test/bundles/shop.example/" + string(format)
		want, err := format.Marshal(bundles["shop.example"])
		require.NoError(t, err)
		get := func(method string, header ...string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request(method, url, "eu.test", header...))
			require.Equal(t, "no-cache", w.Header().Get("Cache-Control"))
			return w
		}
		whole := get("GET")
		require.Equal(t, 200, whole.Code)
		require.Equal(t, string(want), whole.Body.String())
		require.Equal(t, contentType, whole.Header().Get("Content-Type"))
		head := get("HEAD")
		require.Equal(t, 200, head.Code)
		require.Zero(t, head.Body.Len())
		require.Equal(t, whole.Header(), head.Header())
		require.Equal(t, 304, get("GET", "If-None-Match", whole.Header().Get("ETag")).Code)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("PUT", url, "eu.test"))
		require.Equal(t, 405, w.Code)
	}
}

func TestHandlerIfNoneMatch(t *testing.T) {
	h, _ := bundletest.NewHandler(t)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("GET", "https://eu.test/", "eu.test"))
	etag := w.Header().Get("ETag")
	for _, test := range []struct {
		name   string
		header []string
		code   int
	}{
		{"the same", []string{"If-None-Match", etag}, 304},
		{"weak", []string{"If-None-Match", "W/" + etag}, 304},
		{"star", []string{"If-None-Match", " * "}, 304},
		{"in a list", []string{"If-None-Match", `"a,b", W/"c" ,` + etag}, 304},
		{"in a second field", []string{"If-None-Match", `"a"`, "If-None-Match", etag}, 304},
		{"another", []string{"If-None-Match", `"a"`}, 200},
		{"a part of it", []string{"If-None-Match", etag[:10] + `"`}, 200},
		{"without quotes", []string{"If-None-Match", strings.Trim(etag, `"`)}, 200},
		{"cut short", []string{"If-None-Match", etag[:len(etag)-1]}, 200},
		{"after rubbish", []string{"If-None-Match", `x ` + etag}, 200},
		{"empty", []string{"If-None-Match", ""}, 200},
		{"star in a list", []string{"If-None-Match", `"a", *`}, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request("GET", "https://eu.test/", "eu.test", test.header...))
			require.Equal(t, test.code, w.Code)
			require.Equal(t, etag, w.Header().Get("ETag"))
			require.Equal(t, test.code == 304, w.Body.Len() == 0)
		})
	}
}

func TestHandlerPublish(t *testing.T) {
	registry := prometheus.NewRegistry()
	h, err := endpoint.NewHandler(registry)
	require.NoError(t, err)
	get := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("GET", "https://eu.test/", "eu.test"))
		return w
	}
	require.Equal(t, 503, get().Code)
	require.Equal(t, "no bundle has been published yet; try again in a moment\n", get().Body.String())

	one := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home))
	other := bundletest.NewBundle(t, bundletest.Foreign, 1, bundletest.NewAuthority(t, bundletest.Foreign))
	require.NoError(t, h.Publish(endpoint.Publication{Home: bundletest.Home, Hosted: []endpoint.Hosted{{Bundle: one}}}))
	first := get()
	require.Equal(t, string(one.Marshal()), first.Body.String())

	two := bundletest.NewBundle(t, bundletest.Home, 2, bundletest.NewAuthority(t, bundletest.Home))
	require.NoError(t, h.Publish(endpoint.Publication{Home: bundletest.Home, Hosted: []endpoint.Hosted{{Bundle: two}}}))
	second := get()
	require.Equal(t, string(two.Marshal()), second.Body.String())
	require.NotEqual(t, first.Header().Get("ETag"), second.Header().Get("ETag"))

	for _, test := range []struct {
		publication endpoint.Publication
		text        string
	}{
		{endpoint.Publication{Home: bundletest.Home},
			"publish bundles: there is no hosted bundle of the home domain eu.example.org"},
		{endpoint.Publication{Home: bundletest.Home, Hosted: []endpoint.Hosted{{Bundle: one}, {Bundle: two}}},
			"publish bundles: a trust domain occurs twice: eu.example.org"},
		{endpoint.Publication{Home: bundletest.Home, Hosted: []endpoint.Hosted{{Bundle: one}},
			Attested: bundletest.MapEntries(t, two)}, "publish bundles: a trust domain occurs twice: eu.example.org"},
		{endpoint.Publication{Home: bundletest.Home, Hosted: []endpoint.Hosted{{Bundle: one, Host: "a.test"},
			{Bundle: other, Host: "A.test"}}},
			`publish bundles: eu.example.org and us.example.org both have the endpoint host "a.test"; give each its ` +
				`own`},
	} {
		require.EqualError(t, h.Publish(test.publication), test.text)
		require.Equal(t, string(two.Marshal()), get().Body.String(), "what was published stays")
	}
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP entente_bundle_endpoint_requests_total Requests answered by the bundle endpoint, by status code.
# TYPE entente_bundle_endpoint_requests_total counter
entente_bundle_endpoint_requests_total{code="200"} 6
entente_bundle_endpoint_requests_total{code="304"} 0
entente_bundle_endpoint_requests_total{code="400"} 0
entente_bundle_endpoint_requests_total{code="404"} 0
entente_bundle_endpoint_requests_total{code="405"} 0
entente_bundle_endpoint_requests_total{code="421"} 0
entente_bundle_endpoint_requests_total{code="503"} 2
`), "entente_bundle_endpoint_requests_total"))
}

// TestHandlerSwapsWhole reads while publications are swapped: every answer is one of them, with its own ETag.
func TestHandlerSwapsWhole(t *testing.T) {
	h, err := endpoint.NewHandler(nil)
	require.NoError(t, err)
	versions := make([]endpoint.Publication, 2)
	etags := make(map[string]string)
	for i := range versions {
		b := bundletest.NewBundle(t, bundletest.Home, uint64(i), bundletest.NewAuthority(t, bundletest.Home))
		versions[i] = endpoint.Publication{Home: bundletest.Home, Hosted: []endpoint.Hosted{{Bundle: b}}}
		require.NoError(t, h.Publish(versions[i]))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("GET", "https://eu.test/", "eu.test"))
		etags[w.Header().Get("ETag")] = w.Body.String()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			if err := h.Publish(versions[i%2]); err != nil {
				t.Error(err)
			}
		}
	}()
	for range 200 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("GET", "https://eu.test/", "eu.test"))
		body, err := io.ReadAll(w.Body)
		require.NoError(t, err)
		require.Equal(t, etags[w.Header().Get("ETag")], string(body))
	}
	<-done
}
