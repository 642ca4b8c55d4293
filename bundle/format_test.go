package bundle_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// withAllKinds returns a bundle with a key of each kind, and an Ed25519 key for WIT-SVIDs.
func withAllKinds(t *testing.T) *bundle.Bundle {
	t.Helper()
	b, err := bundle.New(bundletest.Home, bundle.Content{
		X509Authorities: []*x509.Certificate{bundletest.NewAuthority(t, bundletest.Home).Cert},
		JWTAuthorities:  keys{"b": &bundletest.NewKey(t).PublicKey, "a": &bundletest.RSAKey().PublicKey},
		WITAuthorities:  keys{"a": &bundletest.NewKey(t).PublicKey, "e": bundletest.NewEd25519Key(t).Public()},
		Sequence:        new(uint64(7)), RefreshHint: new(5 * time.Minute),
	})
	require.NoError(t, err)
	return b
}

// TestFormats reads each format with the library that its users have.
func TestFormats(t *testing.T) {
	b := withAllKinds(t)
	of := func(f bundle.Format) []byte {
		body, err := f.Marshal(b)
		require.NoError(t, err)
		require.True(t, f.Has(b))
		return body
	}

	theirs, err := spiffebundle.Parse(bundletest.Home, of(bundle.FormatSPIFFE))
	require.NoError(t, err)
	require.Equal(t, b.X509Authorities(), theirs.X509Authorities())
	require.Equal(t, b.JWTAuthorities(), theirs.JWTAuthorities())
	require.Equal(t, b.WITAuthorities(), theirs.WITAuthorities())

	block, rest := pem.Decode(of(bundle.FormatPEM))
	require.Equal(t, b.X509Authorities()[0].Raw, block.Bytes)
	require.Empty(t, rest)

	var set jose.JSONWebKeySet
	require.NoError(t, json.Unmarshal(of(bundle.FormatJWKS), &set))
	require.Len(t, set.Keys, 2, "keys for WIT-SVIDs verify no JSON Web Token of a workload")
	for _, k := range set.Keys {
		require.True(t, b.JWTAuthorities()[k.KeyID].(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Key))
		require.Equal(t, "sig", k.Use)
	}
	require.Empty(t, set.Key("a")[0].Algorithm, "an RSA key has several algorithms")
	require.Equal(t, "ES256", set.Key("b")[0].Algorithm)

	n, err := bundle.ReadMap(
		bytes.NewReader(of(bundle.FormatMap)),
		func(td spiffeid.TrustDomain, document []byte) error {
			read, ignored, err := bundle.ParseMapped(td, document)
			require.NoError(t, err)
			require.Empty(t, ignored)
			require.Equal(t, b.WITAuthorities(), read.WITAuthorities())
			return nil
		},
	)
	require.NoError(t, err)
	require.Equal(t, 1, n)

	_, err = bundle.ParseFormat("der")
	require.EqualError(t, err, `"der": not a format of bundles; there are spiffe, pem, jwks, map`)
}

func TestFormatsOfAnEmptyBundle(t *testing.T) {
	b, err := bundle.New(bundletest.Home, bundle.Content{})
	require.NoError(t, err)
	for f, want := range map[bundle.Format]string{
		bundle.FormatSPIFFE: `{"keys":[]}`, bundle.FormatPEM: "", bundle.FormatJWKS: `{"keys":[]}`,
		bundle.FormatMap: `{"trust_domains":{"eu.example.org":{"keys":[]}}}`,
	} {
		body, err := f.Marshal(b)
		require.NoError(t, err)
		require.Equal(t, want, string(body))
	}
	require.True(t, bundle.FormatSPIFFE.Has(b))
	require.False(t, bundle.FormatPEM.Has(b))
	require.False(t, bundle.FormatJWKS.Has(b))
}

// TestMapEntryAlone: outside of a map a document has its refresh hint, as the bundle itself.
func TestMapEntryAlone(t *testing.T) {
	whole := withAllKinds(t)
	bare, err := whole.With(func(c *bundle.Content) { c.RefreshHint = nil })
	require.NoError(t, err)
	unordered, err := whole.With(func(c *bundle.Content) { c.Sequence = nil })
	require.NoError(t, err)
	empty, err := bundle.New(bundletest.Home, bundle.Content{RefreshHint: new(time.Second)})
	require.NoError(t, err)
	for _, b := range []*bundle.Bundle{whole, bare, unordered, empty} {
		entry, err := bundle.NewMapEntry(b)
		require.NoError(t, err)
		require.Equal(t, string(b.Marshal()), string(entry.Alone()))
	}
}

// TestDigestLeavesOutWITKeys: members and hubs of earlier versions leave the keys out, and must see the same bundle.
func TestDigestLeavesOutWITKeys(t *testing.T) {
	with := withAllKinds(t)
	without, err := with.With(func(c *bundle.Content) { c.WITAuthorities = nil })
	require.NoError(t, err)
	require.True(t, with.SameKeys(without))
	require.False(t, with.Equal(without))
	differences := bundle.Differences(without, with)
	require.Len(t, differences, 2)
	require.Equal(t, "WIT authority added: key a, EC P-256", differences[0].Text)
	require.Equal(t, "WIT authority added: key e, Ed25519", differences[1].Text)
}
