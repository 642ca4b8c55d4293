package endpoint_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/statement"
)

func publishedStatements(t *testing.T) (*endpoint.Handler, *bundletest.Chain) {
	t.Helper()
	c := bundletest.NewChain(t)
	c.Add(7, "a", "a")
	c.Add(9, "a", "a")
	bank := spiffeid.RequireTrustDomainFromString("bank.example")
	h, err := endpoint.NewHandler(nil)
	require.NoError(t, err)
	require.NoError(t, h.Publish(endpoint.Publication{Home: bundletest.Home, Hosted: []endpoint.Hosted{
		{
			Bundle:     bundletest.NewBundle(t, bundletest.Home, 9, bundletest.NewAuthority(t, bundletest.Home)),
			Statements: statement.NewList(bundletest.Home, []string{c.List[0].String(), "damaged", c.List[1].String()}),
		},
		{Bundle: bundletest.NewBundle(t, bank, 1, bundletest.NewAuthority(t, bank)), Host: "bank.test"},
	}}))
	return h, c
}

func TestStatementsAreServed(t *testing.T) {
	h, c := publishedStatements(t)
	all := string(statement.MarshalList(bundletest.Home, []string{c.List[0].String(), c.List[1].String()}))
	last := string(statement.MarshalList(bundletest.Home, []string{c.List[1].String()}))
	for _, test := range []struct {
		name, url, sni string
		code           int
		body           string
	}{
		{"all", "https://eu.test/bundles/eu.example.org/statements", "eu.test", 200, all},
		{"from the first", "https://eu.test/bundles/eu.example.org/statements?from=7", "eu.test", 200, all},
		{"from between", "https://eu.test/bundles/eu.example.org/statements?from=8", "eu.test", 200, last},
		{"from beyond", "https://eu.test/bundles/eu.example.org/statements?from=18446744073709551615", "eu.test", 200,
			`{"trust_domain":"eu.example.org","statements":[]}`},
		{"from nowhere", "https://eu.test/bundles/eu.example.org/statements?from=-1", "eu.test", 400,
			"from is not a whole number; set it to the lowest sequence of the statements\n"},
		{"a broken query", "https://eu.test/bundles/eu.example.org/statements?from=%zz", "eu.test", 400,
			"from is not a whole number; set it to the lowest sequence of the statements\n"},
		{"another domain's", "https://eu.test/bundles/bank.example/statements", "eu.test", 200,
			`{"trust_domain":"bank.example","statements":[]}`},
		{"at its own host", "https://bank.test/bundles/bank.example/statements", "bank.test", 200,
			`{"trust_domain":"bank.example","statements":[]}`},
		{"of others at an own host", "https://bank.test/bundles/eu.example.org/statements", "bank.test", 404,
			`no bundle is published at "/bundles/eu.example.org/statements"` + "\n"},
		{"on another name's connection", "https://bank.test/bundles/bank.example/statements", "eu.test", 421,
			`this connection was opened for another host name; open one for "bank.test"` + "\n"},
		{"of an unknown domain", "https://eu.test/bundles/x.test/statements", "eu.test", 404,
			`no bundle is published at "/bundles/x.test/statements"` + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request("GET", test.url, test.sni))
			require.Equal(t, test.code, w.Code)
			require.Equal(t, test.body, w.Body.String())
			if test.code == http.StatusOK {
				again := httptest.NewRecorder()
				h.ServeHTTP(again, request("GET", test.url, test.sni, "If-None-Match", w.Header().Get("ETag")))
				require.Equal(t, http.StatusNotModified, again.Code)
			}
		})
	}
}

func TestFetchStatements(t *testing.T) {
	h, c := publishedStatements(t)
	client := endpoint.NewClient(endpoint.ClientConfig{})
	for _, path := range []string{"/", "/bundles/eu.example.org"} {
		got, err := client.FetchStatements(t.Context(), ownEndpoint(t, h, path), 8)
		require.NoError(t, err)
		require.Equal(t, c.List[1:], got)
	}
	answers := map[string]http.HandlerFunc{
		"no_statements": http.NotFound,
		"bad_status":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"too_large": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat(" ", statement.MaxListBytes+1)))
		},
		"bad_statement": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"trust_domain":"eu.example.org","statements":["a.b.c"]}`))
		},
		"malformed": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`<html>`)) },
		"bad_redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/", http.StatusFound)
		},
	}
	for reason, answer := range answers {
		t.Run(reason, func(t *testing.T) {
			p := newPeer(
				t,
				func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
				answer,
			)
			e, err := endpoint.NewSPIFFE(bundletest.Home, p.url("/bundles/eu.example.org"), bundletest.EndpointID)
			require.NoError(t, err)
			client := endpoint.NewClient(
				endpoint.ClientConfig{Bundles: bundletest.NewBundle(t, bundletest.Home, 1, p.ca)},
			)
			_, err = client.FetchStatements(t.Context(), e, 1)
			require.Equal(t, reason, bundle.Reason(err), "%v", err)
		})
	}
}
