package port_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/port"
)

// authority signs SVIDs for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, domain string, now time.Time) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: domain}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(24 * time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs: []*url.URL{uri("spiffe://" + domain)},
	}
	return &authority{t: t, cert: sign(t, template, template, key.Public(), key), key: key}
}

func uri(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func sign(t *testing.T, template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return c
}

// issue signs an SVID after the changes.
func (a *authority) issue(id string, until time.Time, change ...func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "workload"}, NotBefore: until.Add(-24 * time.Hour),
		NotAfter:              until,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{uri(id)},
	}
	for _, fn := range change {
		fn(template)
	}
	leaf := sign(a.t, template, a.cert, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// below returns an authority that this one has signed.
func (a *authority) below(change ...func(*x509.Certificate)) *authority {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "intermediate"}, NotBefore: a.cert.NotBefore,
		NotAfter: a.cert.NotAfter.Add(-time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, fn := range change {
		fn(template)
	}
	return &authority{t: a.t, cert: sign(a.t, template, a.cert, key.Public(), a.key), key: key}
}

func (a *authority) bundles(domain string) *credentialsOfClients {
	td := spiffeid.RequireTrustDomainFromString(domain)
	return &credentialsOfClients{bundles: map[spiffeid.TrustDomain][]*x509.Certificate{td: {a.cert}}}
}

// Each error of svid.Verify has its own reason in the metric of the port. Package svid tests the rules.
func TestCallersAreRefusedByReason(t *testing.T) {
	const id = "spiffe://" + homeDomain + "/billing"
	m := newMember(t, "eu-1").form()
	ca := home(t, m)
	now := time.Now()
	leaf := func(change ...func(*x509.Certificate)) tls.Certificate {
		return ca.issue(id, now.Add(time.Hour), change...)
	}
	below := func(change ...func(*x509.Certificate)) tls.Certificate {
		between := ca.below(change...)
		svid := between.issue(id, now.Add(time.Hour))
		svid.Certificate = append(svid.Certificate, between.cert.Raw)
		return svid
	}
	padded := leaf()
	for range 8 {
		padded.Certificate = append(padded.Certificate, ca.cert.Raw)
	}
	for name, c := range map[string]struct {
		svid   tls.Certificate
		reason port.Reason
	}{
		"two URIs": {leaf(func(c *x509.Certificate) {
			c.URIs = append(c.URIs,
				uri("spiffe://"+homeDomain+"/admin"))
		}), port.ReasonMalformedSVID},
		"an authority": {leaf(func(c *x509.Certificate) { c.IsCA = true }), port.ReasonMalformedSVID},
		"for servers alone": {leaf(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }),
			port.ReasonMalformedSVID},
		"empty subject":     {leaf(emptySubject), port.ReasonMalformedSVID},
		"nine certificates": {padded, port.ReasonMalformedSVID},
		"expired":           {ca.issue(id, now.Add(-time.Second)), port.ReasonExpiredSVID},
		"not valid yet": {leaf(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }),
			port.ReasonEarlySVID},
		"a domain not known": {ca.issue("spiffe://us.example.org/billing", now.Add(time.Hour)),
			port.ReasonUntrustedDomain},
		"another's anchor": {newAuthority(t, homeDomain, now).issue(id, now.Add(time.Hour)),
			port.ReasonUnverifiedSVID},
		"an expired intermediate": {below(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }),
			port.ReasonUnverifiedSVID},
		"an intermediate's domain": {below(named("spiffe://us.example.org")), port.ReasonUnverifiedSVID},
	} {
		t.Run(name, func(t *testing.T) {
			before := refused(t, m, string(port.GRPC), c.reason)
			requireClosed(t, refusal(clientTLS(m.address, string(port.GRPC), &c.svid)))
			m.eventually("counts the refusal", func() error {
				if refused(t, m, string(port.GRPC), c.reason) == before {
					return fmt.Errorf("nothing was refused as %s", c.reason)
				}
				return nil
			})
		})
	}
	served := below()
	conn, err := clientTLS(m.address, string(port.GRPC), &served)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(waitLimit)))
	_, err = conn.Read(make([]byte, 1))
	require.NoError(t, err, "a leaf below an intermediate is served")
}

// named replaces the URIs of a certificate.
func named(id string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.URIs = []*url.URL{uri(id)} }
}

// emptySubject removes the subject, and adds the alternative name as an extension without the critical mark of Go.
func emptySubject(c *x509.Certificate) {
	c.Subject = pkix.Name{}
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6,
		Bytes: []byte(c.URIs[0].String())}})
	if err != nil {
		panic(err)
	}
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	c.URIs = nil
}
