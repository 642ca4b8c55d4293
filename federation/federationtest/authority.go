package federationtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

// Authority is the signing authority of a trust domain that a test plays.
type Authority struct {
	TrustDomain spiffeid.TrustDomain
	Key         *ecdsa.PrivateKey
	Cert        *x509.Certificate
	Hint        *time.Duration
}

// NewAuthority returns an authority of a trust domain whose certificate is valid for an hour.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	return NewAuthorityUntil(t, name, time.Now().Add(time.Hour))
}

// NewAuthorityUntil returns an authority of a trust domain whose certificate is valid until a given time.
func NewAuthorityUntil(t testing.TB, name string, until time.Time) *Authority {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString(name)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: Serial(t), Subject: pkix.Name{CommonName: name}, URIs: []*url.URL{td.ID().URL()},
		NotBefore: until.Add(-2 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &Authority{TrustDomain: td, Key: key, Cert: cert}
}

// Rotated is the same domain's next authority.
func (a *Authority) Rotated(t testing.TB) *Authority {
	t.Helper()
	next := NewAuthority(t, a.TrustDomain.Name())
	next.Hint = a.Hint
	return next
}

// Bundle is the domain's bundle, with this authority and others of the domain.
func (a *Authority) Bundle(t testing.TB, sequence uint64, others ...*Authority) *bundle.Bundle {
	t.Helper()
	content := bundle.Content{X509Authorities: []*x509.Certificate{a.Cert}, Sequence: &sequence, RefreshHint: a.Hint}
	for _, o := range others {
		content.X509Authorities = append(content.X509Authorities, o.Cert)
	}
	b, err := bundle.New(a.TrustDomain, content)
	require.NoError(t, err)
	return b
}

// SVID is what an endpoint of the domain presents.
func (a *Authority) SVID(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: Serial(t), URIs: []*url.URL{a.EndpointID().URL()}, DNSNames: []string{"localhost"},
		NotBefore: a.Cert.NotBefore, NotAfter: a.Cert.NotAfter, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		Subject:     pkix.Name{CommonName: "endpoint"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.Key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// EndpointID returns the SPIFFE ID of the domain's bundle endpoint.
func (a *Authority) EndpointID() spiffeid.ID {
	return spiffeid.RequireFromPath(a.TrustDomain, "/entente/bundle-endpoint")
}

// PEM returns the authority's certificate as PEM.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Cert.Raw})
}

// Serial returns a random serial number.
func Serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	return n
}

// Every sets the refresh hint of the authority's bundles, and returns the authority.
func (a *Authority) Every(hint time.Duration) *Authority {
	a.Hint = &hint
	return a
}

// MemberSVID returns a new X509-SVID with a path in the authority's domain.
func (a *Authority) MemberSVID(t testing.TB, path string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: Serial(t), URIs: []*url.URL{spiffeid.RequireFromPath(a.TrustDomain, path).URL()},
		Subject: pkix.Name{CommonName: "member"}, NotBefore: a.Cert.NotBefore, NotAfter: a.Cert.NotAfter,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.Key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Large returns a valid bundle that does not fit into one command of the log.
func (a *Authority) Large(t testing.TB, sequence uint64) *bundle.Bundle {
	t.Helper()
	content := bundle.Content{X509Authorities: []*x509.Certificate{a.Cert}, Sequence: &sequence, RefreshHint: a.Hint}
	for range 200 {
		value, err := asn1.Marshal([]byte(rand.Text() + string(make([]byte, 2500))))
		require.NoError(t, err)
		template := &x509.Certificate{
			SerialNumber: Serial(t), URIs: a.Cert.URIs, NotBefore: a.Cert.NotBefore, NotAfter: a.Cert.NotAfter,
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: value}},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, a.Key.Public(), a.Key)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		content.X509Authorities = append(content.X509Authorities, cert)
	}
	b, err := bundle.New(a.TrustDomain, content)
	require.NoError(t, err)
	require.Less(t, len(b.Marshal()), bundle.MaxDocumentBytes)
	require.Greater(t, len(b.Marshal()), 512<<10)
	return b
}
