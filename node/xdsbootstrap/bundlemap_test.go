package xdsbootstrap_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/node/xdsbootstrap"
)

// root returns a root certificate with a key.
func root(t *testing.T, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// TestBundleMap holds the map against the rules by which gRPC for Java loads one, as a whole or not at all: keys of RSA
// or EC, without kid, for X509-SVIDs, each with one certificate (io.grpc.internal.SpiffeUtil).
func TestBundleMap(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	ordinary, unread := root(t, key), root(t, edwards)
	jwt := map[string]crypto.PublicKey{"k1": key.Public()}
	sequence := func(n uint64) *uint64 { return &n }
	documents := map[string][]byte{}
	for name, c := range map[string]bundle.Content{
		"ordinary.example.org": {X509Authorities: []*x509.Certificate{ordinary}, Sequence: sequence(7)},
		"jwt.example.org": {
			X509Authorities: []*x509.Certificate{ordinary}, JWTAuthorities: jwt, Sequence: sequence(1 << 53),
		},
		"jwt-alone.example.org": {JWTAuthorities: jwt},
		"edwards.example.org":   {X509Authorities: []*x509.Certificate{unread, ordinary}},
		"far.example.org":       {X509Authorities: []*x509.Certificate{ordinary}, Sequence: sequence(1<<53 + 1)},
		"empty.example.org":     {},
	} {
		b, err := bundle.New(spiffeid.RequireTrustDomainFromString(name), c)
		require.NoError(t, err)
		documents[name] = b.Marshal()
	}
	text, err := xdsbootstrap.BundleMap(documents)
	require.NoError(t, err)

	var file struct {
		Domains map[string]json.RawMessage `json:"trust_domains"`
	}
	require.NoError(t, json.Unmarshal(text, &file))
	type found struct {
		keys     int
		sequence any
	}
	got := map[string]found{}
	for name, document := range file.Domains {
		var entry struct {
			Sequence any              `json:"spiffe_sequence"`
			Keys     []map[string]any `json:"keys"`
		}
		require.NoError(t, json.Unmarshal(document, &entry))
		for _, key := range entry.Keys {
			require.Contains(t, []any{"RSA", "EC"}, key["kty"], name)
			require.Equal(t, "x509-svid", key["use"], name)
			require.NotContains(t, key, "kid", name)
			require.Len(t, key["x5c"], 1, name)
		}
		got[name] = found{len(entry.Keys), entry.Sequence}
		// gRPC for Go reads each entry so.
		_, err := spiffebundle.Parse(spiffeid.RequireTrustDomainFromString(name), document)
		require.NoError(t, err)
	}
	require.Equal(t, map[string]found{
		"ordinary.example.org":  {1, 7.0},
		"jwt.example.org":       {1, float64(1 << 53)},
		"jwt-alone.example.org": {0, nil},
		"edwards.example.org":   {1, nil},
		"far.example.org":       {1, nil},
		"empty.example.org":     {0, nil},
	}, got)

	_, err = xdsbootstrap.BundleMap(map[string][]byte{"x.example.org": []byte("{}")})
	require.EqualError(t, err, "bundle document of x.example.org: the document has no list of keys: keys must be "+
		"present; an empty list means that no key is trusted")
}
