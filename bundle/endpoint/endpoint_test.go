package endpoint_test

import (
	"io"
	"log"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

func TestParseURL(t *testing.T) {
	for _, test := range []struct{ url, err string }{
		{"https://example.org", ""},
		{"https://example.org:8443/a/b?c=d", ""},
		{"https://[2001:db8::1]:7443/", ""},
		{"HTTPS://example.org/", ""},
		{"", `"" has scheme ""; https is needed`},
		{"example.org/bundle", `"example.org/bundle" has scheme ""; https is needed`},
		{"http://example.org", `"http://example.org" has scheme "http"; https is needed`},
		{"spiffe://example.org", `"spiffe://example.org" has scheme "spiffe"; https is needed`},
		{"https://", `"https:" has no host`},
		{"https:///bundle", `"https:///bundle" has no host`},
		{"https:example.org", `"https:example.org" has no host`},
		{"https://:443/", `"https://:443/" has no host`},
		{"https://user@example.org", "it has user information; an endpoint is read by everybody"},
		{"https://user:secret@example.org", "it has user information; an endpoint is read by everybody"},
		{"https://@example.org", "it has user information; an endpoint is read by everybody"},
		{"https://example.org/#keys", `"https://example.org/#keys" has a fragment`},
		{"https://example.org:0/", `"https://example.org:0/" has port "0"; 1 to 65535 are allowed`},
		{"https://example.org:65536/", `"https://example.org:65536/" has port "65536"; 1 to 65535 are allowed`},
		{"https://example.org:/", `"https://example.org:/" has a colon and no port`},
		{"https://exa mple.org/", `"https://exa mple.org/" does not parse`},
		{"https://example.org/" + strings.Repeat("x", 2048), "it has 2068 bytes, at most 2048 are allowed"},
	} {
		u, err := endpoint.ParseURL(test.url)
		if test.err == "" {
			require.NoError(t, err)
			require.NotNil(t, u)
			continue
		}
		require.EqualError(t, err, "the URL is not a valid bundle endpoint URL: "+test.err)
		require.Equal(t, "bad_url", bundle.Reason(err))
	}
}

func TestEndpoint(t *testing.T) {
	ca := bundletest.NewAuthority(t, bundletest.Home)
	id := spiffeid.RequireFromString("spiffe://us.example.org/endpoint")
	e, err := endpoint.NewSPIFFE(bundletest.Home, "https://example.org/", id)
	require.NoError(t, err)
	require.Equal(t, "https_spiffe", e.Profile().String())
	require.Equal(t, id, e.ID())
	require.False(t, e.SelfServing())

	roots := bundletest.NewBundle(t, bundletest.Home, 1, ca).PEM()
	e, err = endpoint.NewWeb(bundletest.Home, "https://example.org/", roots)
	require.NoError(t, err)
	require.Equal(t, "https_web", e.Profile().String())
	require.False(t, e.SelfServing())

	_, err = endpoint.NewSPIFFE(bundletest.Home, "https://example.org/", bundletest.Home.ID())
	require.EqualError(
		t,
		err,
		"bundle endpoint of eu.example.org: the endpoint is not fully described: https_spiffe needs the endpoint's "+
			"SPIFFE ID, with a path",
	)
	_, err = endpoint.NewSPIFFE(spiffeid.TrustDomain{}, "https://example.org/", id)
	require.EqualError(t, err, "the endpoint is not fully described: it needs the trust domain that its bundle is for")
	_, err = endpoint.NewWeb(bundletest.Home, "https://example.org/", []byte("rubbish"))
	require.EqualError(
		t,
		err,
		"bundle endpoint of eu.example.org: the endpoint is not fully described: web roots: after 0 certificates "+
			"there is something that is not PEM",
	)
	_, err = endpoint.NewWeb(bundletest.Home, "https://example.org/", append(roots, "rubbish"...))
	require.EqualError(
		t,
		err,
		"bundle endpoint of eu.example.org: the endpoint is not fully described: web roots: after 1 certificates "+
			"there is something that is not PEM",
	)
	_, err = endpoint.NewWeb(
		bundletest.Home,
		"https://example.org/",
		slices.Concat(roots, []byte("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), roots),
	)
	require.EqualError(
		t,
		err,
		"bundle endpoint of eu.example.org: the endpoint is not fully described: web roots: only 2 of 3 PEM blocks "+
			"can be read",
	)
	_, err = endpoint.NewWeb(
		bundletest.Home,
		"https://example.org/",
		slices.Concat([]byte("# a root\n"), roots, []byte("# and again\n"), roots),
	)
	require.NoError(t, err)
	_, err = endpoint.NewClient(endpoint.ClientConfig{}).Fetch(t.Context(), endpoint.Remote{}, "")
	require.EqualError(t, err, "fetch a bundle: the endpoint is not fully described")
}
