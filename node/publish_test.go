package node

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/publisher"
)

// TestPublisherServesIssuers: what stands in the tables is what the endpoint serves, a domain's issuer from the moment
// that it is set and until it is taken back.
func TestPublisherServesIssuers(t *testing.T) {
	home := spiffeid.RequireTrustDomainFromString("eu.example.org")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	b, err := bundle.New(home, bundle.Content{JWTAuthorities: map[string]crypto.PublicKey{"kid1": key.Public()},
		Sequence: new(uint64(1)), RefreshHint: new(time.Minute)})
	require.NoError(t, err)
	store := raftstoretest.New(t)
	handler, err := endpoint.NewHandler(nil)
	require.NoError(t, err)
	p := publisher.New(publisher.Config{
		Store: store, Index: trust.NewIndex(trustSources()), Home: home, Handler: handler,
		Logger: hclog.NewNullLogger(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })

	set := func(issuer string) {
		_, err := store.Update(t.Context(), func(tx *raftstore.Tx) error {
			if err := table.HostedBundles.Put(tx, home.Name(), b.Row(time.Now())); err != nil {
				return err
			}
			return table.Domains.Put(tx, home.Name(), &statev1.Domain{TrustDomain: home.Name(), OidcIssuer: issuer})
		})
		require.NoError(t, err)
	}
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://oidc.example.org"+path, nil))
		return w
	}
	becomes := func(path string, code int) *httptest.ResponseRecorder {
		require.Eventually(t, func() bool { return get(path).Code == code }, time.Minute, time.Millisecond, path)
		return get(path)
	}
	set("https://oidc.example.org/eu")
	var config struct {
		Issuer string
		JWKS   string `json:"jwks_uri"`
	}
	require.NoError(t, json.Unmarshal(becomes("/eu/.well-known/openid-configuration", 200).Body.Bytes(), &config))
	require.Equal(t, "https://oidc.example.org/eu", config.Issuer)
	require.Equal(t, "https://oidc.example.org/eu/.well-known/jwks.json", config.JWKS)
	require.Contains(t, get("/eu/.well-known/jwks.json").Body.String(), `"kid":"kid1"`)
	require.NoError(t, p.Ready())
	set("")
	becomes("/eu/.well-known/openid-configuration", 404)
	becomes("/", 200)
}
