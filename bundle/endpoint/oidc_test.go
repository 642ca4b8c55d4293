package endpoint_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

func TestParseIssuer(t *testing.T) {
	for _, text := range []string{
		"https://oidc.example.org", "https://localhost:7443", "https://oidc.example.org/eu",
		"https://oidc.example.org:8443/a/B_c-d.e~f/1",
		"https://1.example.org/bundles", "https://" + strings.Repeat("a", 63) + ".example",
	} {
		i, err := endpoint.ParseIssuer(text)
		require.NoError(t, err)
		require.Equal(t, text, i.String())
		require.False(t, i.IsZero())
	}
	for text, want := range map[string]string{
		"": `issuer "": not an issuer: it does not begin with "https://"`,
		"http://oidc.example.org": `issuer "http://oidc.example.org": not an issuer: ` +
			`it does not begin with "https://"`,
		"HTTPS://oidc.example.org":                             `it does not begin with "https://"`,
		"https://":                                             "its host is no host name in lower case",
		"https://Oidc.example.org":                             "its host is no host name in lower case",
		"https://oidc.example.org.":                            "its host is no host name in lower case",
		"https://a_b.example.org":                              "its host is no host name in lower case",
		"https://-a.example.org":                               "its host is no host name in lower case",
		"https://10.0.0.1":                                     "its host is no host name in lower case",
		"https://[::1]":                                        "its host is no host name in lower case",
		"https://user@oidc.example.org":                        "its host is no host name in lower case",
		"https://oidc.example.org?a":                           "its host is no host name in lower case",
		"https://oidc.example.org:443":                         "its port is none from 1 to 65535, or is",
		"https://oidc.example.org:0":                           "its port is none",
		"https://oidc.example.org:":                            "its port is none",
		"https://oidc.example.org:08443":                       "its port is none",
		"https://oidc.example.org:65536":                       "its port is none",
		"https://oidc.example.org/":                            "its path ends with a slash, or has an empty segment",
		"https://oidc.example.org/a/":                          "its path ends with a slash, or has an empty segment",
		"https://oidc.example.org//a":                          "its path ends with a slash, or has an empty segment",
		"https://oidc.example.org/../a":                        "its path has a segment of dots",
		"https://oidc.example.org/.well-known":                 "its path has the segment .well-known",
		"https://oidc.example.org/a%62":                        "its path has other characters than",
		"https://oidc.example.org/a#b":                         "its path has other characters than",
		"https://oidc.example.org/a?b":                         "its path has other characters than",
		"https://oidc.example.org/" + strings.Repeat("a", 256): "at most 255 are allowed",
	} {
		_, err := endpoint.ParseIssuer(text)
		require.ErrorIs(t, err, endpoint.ErrIssuer)
		require.ErrorContains(t, err, want)
	}
}

func FuzzParseIssuer(f *testing.F) {
	f.Add("https://oidc.example.org:8443/eu/1")
	f.Fuzz(func(t *testing.T, text string) {
		i, err := endpoint.ParseIssuer(text)
		if err != nil {
			require.True(t, i.IsZero())
			return
		}
		r := httptest.NewRequest(http.MethodGet, i.String()+"/x", nil) // panics at what is no URL
		require.Equal(t, text+"/x", "https://"+r.Host+r.URL.EscapedPath())
		require.True(t, i.SamePlace(i))
	})
}

// TestOIDC reads an issuer's documents as strictly as its bundle.
func TestOIDC(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	hint := 2 * time.Minute
	b, err := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home)).
		With(func(c *bundle.Content) {
			c.JWTAuthorities = map[string]crypto.PublicKey{"b": p256.Public(), "a": p384.Public()}
			c.RefreshHint = &hint
		})
	require.NoError(t, err)
	h, err := endpoint.NewHandler(nil)
	require.NoError(t, err)
	issuer, err := endpoint.ParseIssuer("https://oidc.example.org:8443/eu")
	require.NoError(t, err)
	publication := endpoint.Publication{Home: bundletest.Home, Hosted: []endpoint.Hosted{{Bundle: b, Issuer: issuer}}}
	require.NoError(t, h.Publish(publication))
	get := func(url, sni string, header ...string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("GET", url, sni, header...))
		return w
	}
	config := get("https://oidc.example.org:8443/eu/.well-known/openid-configuration", "oidc.example.org")
	require.Equal(t, 200, config.Code)
	require.Equal(t, "application/json", config.Header().Get("Content-Type"))
	require.Equal(t, "public, max-age=120", config.Header().Get("Cache-Control"))
	require.JSONEq(
		t,
		`{"issuer": "https://oidc.example.org:8443/eu",
		"jwks_uri": "https://oidc.example.org:8443/eu/.well-known/jwks.json",
		"response_types_supported": ["id_token"], "subject_types_supported": ["public"],
		"id_token_signing_alg_values_supported": ["ES256", "ES384"]}`,
		config.Body.String(),
	)

	keys := get("https://oidc.example.org:8443/eu/.well-known/jwks.json", "oidc.example.org")
	require.Equal(t, 200, keys.Code)
	var set jose.JSONWebKeySet
	require.NoError(t, json.Unmarshal(keys.Body.Bytes(), &set))
	require.Len(t, set.Keys, 2)
	for i, want := range []struct {
		kid, algorithm string
		key            crypto.PublicKey
	}{{"a", "ES384", p384.Public()}, {"b", "ES256", p256.Public()}} {
		require.Equal(t, want.kid, set.Keys[i].KeyID)
		require.Equal(t, want.algorithm, set.Keys[i].Algorithm)
		require.Equal(t, "sig", set.Keys[i].Use)
		require.Equal(t, want.key, set.Keys[i].Key)
	}
	require.NotContains(t, keys.Body.String(), "x5c", "X.509 authorities sign no tokens")
	etag := keys.Header().Get("Etag")
	require.NotEmpty(t, etag)
	require.Equal(
		t,
		304,
		get("https://oidc.example.org:8443/eu/.well-known/jwks.json", "oidc.example.org", "If-None-Match", etag).Code,
	)

	for url, code := range map[string]int{
		"https://oidc.example.org:8443/.well-known/openid-configuration":        404,
		"https://oidc.example.org:8443/eu/.well-known/openid-configuration/":    404,
		"https://oidc.example.org:8443/EU/.well-known/openid-configuration":     404,
		"https://oidc.example.org:8443/eu/keys":                                 404,
		"https://oidc.example.org:8443/bundles/" + bundletest.Home.Name():       200,
		"https://oidc.example.org:8443/eu/.well-known/openid-configuration?a=b": 200,
	} {
		require.Equal(t, code, get(url, "oidc.example.org").Code, url)
	}
	require.Equal(
		t,
		404,
		get("https://eu.test/eu/.well-known/jwks.json", "eu.test").Code,
		"another host is not the issuer",
	)
	require.Equal(t, 421, get("https://oidc.example.org/eu/.well-known/jwks.json", "eu.test").Code)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("POST", "https://oidc.example.org/eu/.well-known/jwks.json", "oidc.example.org"))
	require.Equal(t, 405, w.Code)

	// What would be ambiguous is not published.
	shop := bundletest.NewBundle(t, spiffeid.RequireTrustDomainFromString("shop.example"), 1)
	twin, err := endpoint.ParseIssuer("https://oidc.example.org/eu")
	require.NoError(t, err)
	publication.Hosted = append(publication.Hosted, endpoint.Hosted{Bundle: shop, Issuer: twin})
	require.ErrorContains(t, h.Publish(publication), "have an issuer at oidc.example.org/eu; give each its own")
	publication.Hosted[1].Issuer = endpoint.Issuer{}
	publication.Hosted[0].Issuer, err = endpoint.ParseIssuer("https://oidc.example.org")
	require.NoError(t, err)
	require.NoError(t, h.Publish(publication))
	require.Equal(t, 200, get("https://oidc.example.org/.well-known/openid-configuration", "oidc.example.org").Code)
	require.Equal(t, 404, get("https://oidc.example.org/eu/.well-known/openid-configuration", "oidc.example.org").Code)
}
