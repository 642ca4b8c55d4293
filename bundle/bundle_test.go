package bundle_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

type (
	x509Certificate = x509.Certificate
	keys            = map[string]crypto.PublicKey
)

// pool is what bundles of property tests are drawn from: making keys is slow.
type pool struct {
	certs []*x509.Certificate
	keys  []crypto.PublicKey
}

func newPool(t testing.TB) pool {
	var p pool
	for range 4 {
		p.certs = append(p.certs, bundletest.NewAuthority(t, bundletest.Home).Cert)
	}
	p.certs = append(p.certs,
		bundletest.NewAuthorityWith(t, bundletest.RSAKey(), bundletest.CATemplate(bundletest.Home)).Cert,
		bundletest.NewAuthorityWith(t, bundletest.NewEd25519Key(t), bundletest.CATemplate(bundletest.Home)).Cert)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
		p.keys = append(p.keys, &key.PublicKey)
	}
	p.keys = append(p.keys, &bundletest.RSAKey().PublicKey)
	return p
}

func (p pool) content(t *rapid.T) bundle.Content {
	c := bundle.Content{
		X509Authorities: rapid.SliceOf(rapid.SampledFrom(p.certs)).Draw(t, "certs"),
		JWTAuthorities:  rapid.MapOf(rapid.StringN(1, 8, 64), rapid.SampledFrom(p.keys)).Draw(t, "keys"),
		WITAuthorities:  rapid.MapOf(rapid.StringN(1, 8, 64), rapid.SampledFrom(p.keys)).Draw(t, "wit keys"),
		Sequence:        rapid.Ptr(rapid.Uint64(), true).Draw(t, "sequence"),
	}
	if seconds := rapid.Ptr(rapid.Int64Range(0, 9223372036), true).Draw(t, "hint"); seconds != nil {
		c.RefreshHint = new(time.Duration(*seconds) * time.Second)
	}
	return c
}

func TestMarshalIsStrictAndStable(t *testing.T) {
	p := newPool(t)
	rapid.Check(t, func(t *rapid.T) {
		c := p.content(t)
		b, err := bundle.New(bundletest.Home, c)
		require.NoError(t, err)

		read, ignored, err := bundle.Parse(bundletest.Home, b.Marshal())
		require.NoError(t, err)
		require.Empty(t, ignored, "nothing that is written is ignored in reading")
		require.True(t, read.Equal(b))
		require.Equal(t, b.Marshal(), read.Marshal())
		require.Equal(t, b.Digest(), read.Digest())
		require.True(t, maps.EqualFunc(b.JWTAuthorities(), read.JWTAuthorities(), func(x, y crypto.PublicKey) bool {
			return x.(interface{ Equal(crypto.PublicKey) bool }).Equal(y)
		}))

		slices.Reverse(c.X509Authorities)
		again, err := bundle.New(bundletest.Home, c)
		require.NoError(t, err)
		require.Equal(t, b.Marshal(), again.Marshal(), "the order that the keys come in has no effect")
	})
}

func TestOnlyUsableKeysAreContent(t *testing.T) {
	p := newPool(t)
	rapid.Check(t, func(t *rapid.T) {
		a, err := bundle.New(bundletest.Home, p.content(t))
		require.NoError(t, err)
		b, err := a.With(func(c *bundle.Content) {
			c.Sequence, c.RefreshHint = new(rapid.Uint64().Draw(t, "sequence")), nil
			slices.Reverse(c.X509Authorities)
		})
		require.NoError(t, err)
		require.True(t, a.SameKeys(b))

		other, err := bundle.New(bundletest.Home, p.content(t))
		require.NoError(t, err)
		sameX509 := slices.EqualFunc(a.X509Authorities(), other.X509Authorities(), (*x509.Certificate).Equal)
		sameJWT := maps.EqualFunc(a.JWTAuthorities(), other.JWTAuthorities(), func(x, y crypto.PublicKey) bool {
			return x.(interface{ Equal(crypto.PublicKey) bool }).Equal(y)
		})
		require.Equal(t, sameX509 && sameJWT, a.SameKeys(other))
	})
}

func TestUnknownFieldsAreNoContent(t *testing.T) {
	b := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home))
	var document map[string]any
	require.NoError(t, json.Unmarshal(b.Marshal(), &document))
	document["extra"] = "x"
	keys := document["keys"].([]any)
	keys[0].(map[string]any)["x5t"] = "y"
	document["keys"] = append(keys, map[string]any{"kty": "new", "use": "x509-svid"})
	text, err := json.Marshal(document)
	require.NoError(t, err)
	read, _, err := bundle.Parse(bundletest.Home, text)
	require.NoError(t, err)
	require.True(t, read.SameKeys(b))
	require.Equal(t, b.Marshal(), read.Marshal())
}

func TestDocumentForm(t *testing.T) {
	b, err := bundle.New(bundletest.Home, bundle.Content{
		X509Authorities: []*x509.Certificate{bundletest.NewAuthority(t, bundletest.Home).Cert},
		JWTAuthorities:  keys{"b": &bundletest.NewKey(t).PublicKey, "a": &bundletest.RSAKey().PublicKey},
		Sequence:        new(uint64(7)),
		RefreshHint:     new(5 * time.Minute),
	})
	require.NoError(t, err)
	var document struct {
		Sequence uint64                       `json:"spiffe_sequence"`
		Hint     int                          `json:"spiffe_refresh_hint"`
		Keys     []map[string]json.RawMessage `json:"keys"`
	}
	require.NoError(t, json.Unmarshal(b.Marshal(), &document))
	require.Equal(t, uint64(7), document.Sequence)
	require.Equal(t, 300, document.Hint)
	var forms []string
	for _, k := range document.Keys {
		forms = append(forms, fmt.Sprint(slices.Sorted(maps.Keys(k)), string(k["use"]), string(k["kid"])))
	}
	require.Equal(t, []string{
		`[crv kty use x x5c y]"x509-svid"`,
		`[e kid kty n use]"jwt-svid""a"`,
		`[crv kid kty use x y]"jwt-svid""b"`,
	}, forms)
	var chain []string
	require.NoError(t, json.Unmarshal(document.Keys[0]["x5c"], &chain))
	require.Len(t, chain, 1)
}

func TestGoSPIFFEReadsOurDocument(t *testing.T) {
	p := newPool(t)
	b, err := bundle.New(bundletest.Home, bundle.Content{
		X509Authorities: p.certs,
		JWTAuthorities:  keys{"a": p.keys[0], "b": p.keys[1], "c": p.keys[2], "d": p.keys[3]},
		Sequence:        new(uint64(42)),
		RefreshHint:     new(time.Minute),
	})
	require.NoError(t, err)
	theirs, err := spiffebundle.Parse(bundletest.Home, b.Marshal())
	require.NoError(t, err)
	require.Len(t, theirs.X509Authorities(), len(p.certs))
	require.Equal(t, b.JWTAuthorities(), theirs.JWTAuthorities())
	n, _ := theirs.SequenceNumber()
	require.Equal(t, uint64(42), n)

	text, err := theirs.Marshal()
	require.NoError(t, err)
	ours, ignored, err := bundle.Parse(bundletest.Home, text)
	require.NoError(t, err)
	require.Empty(t, ignored)
	require.True(t, ours.Equal(b))
}

func TestBundleIsImmutable(t *testing.T) {
	b := bundletest.NewBundle(
		t,
		bundletest.Home,
		1,
		bundletest.NewAuthority(t, bundletest.Home),
		bundletest.NewAuthority(t, bundletest.Home),
	)
	before := b.Marshal()
	b.X509Authorities()[0] = nil
	b.Marshal()[0] = 'x'
	c := b.Content()
	*c.Sequence = 99
	c.X509Authorities[1] = nil
	next, err := b.WithSequence(2)
	require.NoError(t, err)
	require.Equal(t, before, b.Marshal())
	require.False(t, next.Equal(b))
	require.True(t, next.SameKeys(b))
}

func TestBundleIsASourceOfItsOwnDomainAlone(t *testing.T) {
	b := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home))
	own, err := b.GetX509BundleForTrustDomain(bundletest.Home)
	require.NoError(t, err)
	require.Len(t, own.X509Authorities(), 1)
	_, err = b.GetX509BundleForTrustDomain(bundletest.Foreign)
	require.EqualError(t, err, "this is the bundle of eu.example.org, not of us.example.org")
	_, err = b.GetJWTBundleForTrustDomain(bundletest.Foreign)
	require.EqualError(t, err, "this is the bundle of eu.example.org, not of us.example.org")
}

func TestRow(t *testing.T) {
	b := bundletest.NewBundle(t, bundletest.Home, 3, bundletest.NewAuthority(t, bundletest.Home))
	changed := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	row := b.Row(changed)
	require.Equal(t, changed, row.GetChangeTime().AsTime())
	require.Equal(t, "eu.example.org", row.GetTrustDomain())
	require.Equal(t, b.Marshal(), row.GetDocument())
}

func TestPEM(t *testing.T) {
	b := bundletest.NewBundle(
		t,
		bundletest.Home,
		1,
		bundletest.NewAuthority(t, bundletest.Home),
		bundletest.NewAuthority(t, bundletest.Home),
	)
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b.PEM()); block != nil; block, rest = pem.Decode(rest) {
		require.Equal(t, "CERTIFICATE", block.Type)
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		certs = append(certs, cert)
	}
	require.Equal(t, b.X509Authorities(), certs)
}

func TestBundleMap(t *testing.T) {
	a := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home))
	b := bundletest.NewBundle(t, bundletest.Foreign, 2, bundletest.NewAuthority(t, bundletest.Foreign))
	text, err := bundle.MarshalMap([]*bundle.Bundle{b, a})
	require.NoError(t, err)
	again, err := bundle.MarshalMap([]*bundle.Bundle{a, b})
	require.NoError(t, err)
	require.Equal(t, text, again)
	require.NotContains(t, string(text), "spiffe_refresh_hint")

	read, ignored, err := readMap(bytes.NewReader(text))
	require.NoError(t, err)
	require.Empty(t, ignored)
	require.Len(t, read, 2)
	require.True(t, read[bundletest.Home].SameKeys(a))
	require.True(t, read[bundletest.Foreign].SameKeys(b))

	_, err = bundle.MarshalMap([]*bundle.Bundle{a, a})
	require.EqualError(t, err, "bundle map: a trust domain occurs twice: eu.example.org")

	empty, err := bundle.MarshalMap(nil)
	require.NoError(t, err)
	require.Equal(t, `{"trust_domains":{}}`, string(empty))
	read, _, err = readMap(bytes.NewReader(empty))
	require.NoError(t, err)
	require.Empty(t, read)
}
