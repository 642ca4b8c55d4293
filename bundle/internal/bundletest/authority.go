package bundletest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

// The trust domains of most tests.
var (
	Home    = spiffeid.RequireTrustDomainFromString("eu.example.org")
	Foreign = spiffeid.RequireTrustDomainFromString("us.example.org")
)

// Authority is a certificate authority of a test.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// NewKey returns a new key on P-256.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// RSAKey returns an RSA key of 2,048 bits, which all tests of a process share.
var RSAKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// NewEd25519Key returns a new Ed25519 key.
func NewEd25519Key(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}

var serial = struct {
	sync.Mutex
	n int64
}{}

// NextSerial returns a serial number that is unique in the process.
func NextSerial() *big.Int {
	serial.Lock()
	defer serial.Unlock()
	serial.n++
	return big.NewInt(serial.n)
}

// CATemplate returns the template of a signing certificate of a trust domain, valid for a day.
func CATemplate(td spiffeid.TrustDomain) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          NextSerial(),
		Subject:               pkix.Name{CommonName: "authority of " + td.Name()},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:                  []*url.URL{td.ID().URL()},
	}
}

// NewAuthority returns an authority of a trust domain with a new key.
func NewAuthority(t testing.TB, td spiffeid.TrustDomain) Authority {
	t.Helper()
	return NewAuthorityWith(t, NewKey(t), CATemplate(td))
}

// NewAuthorityWith returns a self-signed authority with the given key and template.
func NewAuthorityWith(t testing.TB, key crypto.Signer, template *x509.Certificate) Authority {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return Authority{Cert: cert, Key: key}
}

// Intermediate signs another authority.
func (a Authority) Intermediate(t testing.TB, template *x509.Certificate) Authority {
	t.Helper()
	key := NewKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.Key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return Authority{Cert: cert, Key: key}
}

// SVIDTemplate returns the template of an X509-SVID for a server on localhost and for a client, valid for an hour.
func SVIDTemplate(id spiffeid.ID) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          NextSerial(),
		Subject:               pkix.Name{CommonName: "leaf"},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{id.URL()},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
}

// Sign issues a certificate for TLS from a template, with what is above it in the chain.
func (a Authority) Sign(t testing.TB, template *x509.Certificate, above ...*x509.Certificate) *tls.Certificate {
	t.Helper()
	key := NewKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.Key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	chain := [][]byte{der}
	for _, c := range above {
		chain = append(chain, c.Raw)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}
}

// SVID issues an X509-SVID with a new key.
func (a Authority) SVID(t testing.TB, id string) *tls.Certificate {
	t.Helper()
	return a.Sign(t, SVIDTemplate(spiffeid.RequireFromString(id)))
}

// NewBundle makes a bundle of X.509 authorities.
func NewBundle(t testing.TB, td spiffeid.TrustDomain, sequence uint64, authorities ...Authority) *bundle.Bundle {
	t.Helper()
	c := bundle.Content{Sequence: &sequence, RefreshHint: new(5 * time.Minute)}
	for _, a := range authorities {
		c.X509Authorities = append(c.X509Authorities, a.Cert)
	}
	b, err := bundle.New(td, c)
	require.NoError(t, err)
	return b
}

// ECMembers are the coordinates of a key on P-256 as a JWK has them.
func ECMembers(t testing.TB, key *ecdsa.PublicKey) (x, y string) {
	t.Helper()
	point, err := key.Bytes()
	require.NoError(t, err)
	return base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:])
}
