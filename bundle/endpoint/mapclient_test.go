package endpoint_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// TestProbeMap: whether an endpoint serves a map is found out without reading it, under the rules by which it would be
// read.
func TestProbeMap(t *testing.T) {
	t.Run("this server's own", func(t *testing.T) {
		h, _ := bundletest.NewHandler(t)
		e, client := ownEndpoint(t, h, "/"), endpoint.NewClient(endpoint.ClientConfig{})
		require.NoError(t, client.ProbeMap(t.Context(), e, ""))
		domains := 0
		_, err := client.FetchMap(
			t.Context(),
			e,
			"",
			"",
			func(spiffeid.TrustDomain, []byte) error { domains++; return nil },
		)
		require.NoError(t, err)
		require.Positive(t, domains)
	})
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		reason  string
	}{
		"GET alone": {func(w http.ResponseWriter, r *http.Request) {
			require.Equal(t, http.MethodHead, r.Method)
			w.WriteHeader(http.StatusMethodNotAllowed)
		}, "bad_status"},
		"no map": {http.NotFound, "bad_status"},
		"larger than any": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1"+strings.Repeat("0", 12))
		}, "too_large"},
		"elsewhere, in the clear": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://bundle.example.org/", http.StatusFound)
		}, "bad_redirect"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(
				t,
				func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
				test.handler,
			)
			e, err := endpoint.NewSPIFFE(bundletest.Home, p.url("/"), bundletest.EndpointID)
			require.NoError(t, err)
			err = endpoint.NewClient(endpoint.ClientConfig{Bundles: bundletest.NewBundle(t, bundletest.Home, 1, p.ca)}).
				ProbeMap(t.Context(), e, "")
			require.Equal(t, test.reason, bundle.Reason(err), "%v", err)
		})
	}
	require.ErrorIs(
		t,
		endpoint.NewClient(endpoint.ClientConfig{}).ProbeMap(t.Context(), endpoint.Remote{}, ""),
		endpoint.ErrEndpoint,
	)
}
