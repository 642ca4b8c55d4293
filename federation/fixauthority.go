package federation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

// authority is the signing authority of a trust domain that a test plays.
type authority struct {
	td   spiffeid.TrustDomain
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	hint *time.Duration
}

func NewAuthority(t testing.TB, name string) *authority {
	t.Helper()
	return newAuthorityUntil(t, name, time.Now().Add(time.Hour))
}

func newAuthorityUntil(t testing.TB, name string, until time.Time) *authority {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString(name)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, URIs: []*url.URL{td.ID().URL()},
		NotBefore: until.Add(-2 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{td: td, key: key, cert: cert}
}

// Rotated is the same domain's next authority.
func (a *authority) Rotated(t testing.TB) *authority {
	t.Helper()
	next := NewAuthority(t, a.td.Name())
	next.hint = a.hint
	return next
}

// Bundle is the domain's bundle, with this authority and others of the domain.
func (a *authority) Bundle(t testing.TB, sequence uint64, others ...*authority) *bundle.Bundle {
	t.Helper()
	content := bundle.Content{X509Authorities: []*x509.Certificate{a.cert}, Sequence: &sequence, RefreshHint: a.hint}
	for _, o := range others {
		content.X509Authorities = append(content.X509Authorities, o.cert)
	}
	b, err := bundle.New(a.td, content)
	require.NoError(t, err)
	return b
}

// svid is what an endpoint of the domain presents.
func (a *authority) svid(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial(t), URIs: []*url.URL{a.endpointID().URL()}, DNSNames: []string{"localhost"},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		Subject:     pkix.Name{CommonName: "endpoint"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) endpointID() spiffeid.ID {
	return spiffeid.RequireFromPath(a.td, "/entente/bundle-endpoint")
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	return n
}
