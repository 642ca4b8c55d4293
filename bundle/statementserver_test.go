package bundle_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

func publishedStatements(t *testing.T) (*bundle.Handler, *chain) {
	t.Helper()
	c := newChain(t)
	c.add(7, "a", "a")
	c.add(9, "a", "a")
	bank := spiffeid.RequireTrustDomainFromString("bank.example")
	h, err := bundle.NewHandler(nil)
	require.NoError(t, err)
	require.NoError(t, h.Publish(bundle.Publication{Home: home, Hosted: []bundle.Hosted{
		{Bundle: newBundle(t, home, 9, newAuthority(t, home)), Statements: bundle.NewStatements(home, []string{c.list[0].String(), "damaged", c.list[1].String()})},
		{Bundle: newBundle(t, bank, 1, newAuthority(t, bank)), Host: "bank.test"},
	}}))
	return h, c
}

func TestStatementsAreServed(t *testing.T) {
	h, c := publishedStatements(t)
	all := string(bundle.MarshalStatements(home, []string{c.list[0].String(), c.list[1].String()}))
	last := string(bundle.MarshalStatements(home, []string{c.list[1].String()}))
	for _, test := range []struct {
		name, url, sni string
		code           int
		body           string
	}{
		{"all", "https://eu.test/bundles/eu.example.org/statements", "eu.test", 200, all},
		{"from the first", "https://eu.test/bundles/eu.example.org/statements?from=7", "eu.test", 200, all},
		{"from between", "https://eu.test/bundles/eu.example.org/statements?from=8", "eu.test", 200, last},
		{"from beyond", "https://eu.test/bundles/eu.example.org/statements?from=18446744073709551615", "eu.test", 200, `{"trust_domain":"eu.example.org","statements":[]}`},
		{"from nowhere", "https://eu.test/bundles/eu.example.org/statements?from=-1", "eu.test", 400, "from is the lowest sequence of the statements that are asked for, a whole number\n"},
		{"a broken query", "https://eu.test/bundles/eu.example.org/statements?from=%zz", "eu.test", 400, "from is the lowest sequence of the statements that are asked for, a whole number\n"},
		{"another domain's", "https://eu.test/bundles/bank.example/statements", "eu.test", 200, `{"trust_domain":"bank.example","statements":[]}`},
		{"at its own host", "https://bank.test/bundles/bank.example/statements", "bank.test", 200, `{"trust_domain":"bank.example","statements":[]}`},
		{"of others at an own host", "https://bank.test/bundles/eu.example.org/statements", "bank.test", 404, `no bundle is published at "/bundles/eu.example.org/statements"` + "\n"},
		{"on another name's connection", "https://bank.test/bundles/bank.example/statements", "eu.test", 421, `this connection was opened for another host name; open one for "bank.test"` + "\n"},
		{"nobody's", "https://eu.test/bundles/x.test/statements", "eu.test", 404, `no bundle is published at "/bundles/x.test/statements"` + "\n"},
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
	client := bundle.NewClient(bundle.ClientConfig{})
	for _, path := range []string{"/", "/bundles/eu.example.org"} {
		got, err := client.FetchStatements(t.Context(), ownEndpoint(t, h, path), 8)
		require.NoError(t, err)
		require.Equal(t, c.list[1:], got)
	}
	answers := map[string]http.HandlerFunc{
		"no_statements": http.NotFound,
		"bad_status":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"too_large": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat(" ", bundle.MaxStatementsBytes+1)))
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
			p := newPeer(t, func(ca authority) *tls.Certificate { return ca.svid(t, endpointID.String()) }, answer)
			e, err := bundle.SPIFFEEndpoint(home, p.url("/bundles/eu.example.org"), endpointID)
			require.NoError(t, err)
			client := bundle.NewClient(bundle.ClientConfig{Bundles: newBundle(t, home, 1, p.ca)})
			_, err = client.FetchStatements(t.Context(), e, 1)
			require.Equal(t, reason, bundle.Reason(err), "%v", err)
		})
	}
}
