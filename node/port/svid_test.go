package port_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/port"
)

var today = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// authority signs for tests.
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
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: domain}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, URIs: []*url.URL{uri("spiffe://" + domain)},
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

// issue signs an SVID, after change has made of it what the test is about.
func (a *authority) issue(id string, until time.Time, change ...func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "workload"}, NotBefore: until.Add(-24 * time.Hour), NotAfter: until,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{uri(id)},
	}
	for _, fn := range change {
		fn(template)
	}
	leaf := sign(a.t, template, a.cert, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// below makes an authority that this one has signed.
func (a *authority) below(change ...func(*x509.Certificate)) *authority {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "intermediate"}, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter.Add(-time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, fn := range change {
		fn(template)
	}
	return &authority{t: a.t, cert: sign(a.t, template, a.cert, key.Public(), a.key), key: key}
}

func (a *authority) bundles(domain string) *credentialsOfClients {
	return &credentialsOfClients{bundles: map[spiffeid.TrustDomain][]*x509.Certificate{spiffeid.RequireTrustDomainFromString(domain): {a.cert}}}
}

func TestVerifySVID(t *testing.T) {
	const id = "spiffe://eu.example.org/billing"
	ca := newAuthority(t, "eu.example.org", today)
	tomorrow := today.Add(20 * time.Hour)
	leaf := func(change ...func(*x509.Certificate)) []*x509.Certificate {
		return []*x509.Certificate{ca.issue(id, tomorrow, change...).Leaf}
	}
	below := func(change ...func(*x509.Certificate)) []*x509.Certificate {
		intermediate := ca.below(change...)
		return []*x509.Certificate{intermediate.issue(id, tomorrow).Leaf, intermediate.cert}
	}
	usage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	for name, c := range map[string]struct {
		chain  []*x509.Certificate
		reason port.Reason
		says   string
	}{
		"a leaf below the anchor":           {chain: leaf()},
		"a leaf below an intermediate":      {chain: below()},
		"no extended key usage":             {chain: leaf(func(c *x509.Certificate) { c.ExtKeyUsage = nil })},
		"an intermediate of the domain":     {chain: below(func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://eu.example.org")} })},
		"nothing":                           {reason: port.ReasonNoCertificate, says: "the caller presents no certificate; present an X509-SVID"},
		"nine certificates":                 {chain: append(leaf(), below()[0], ca.cert, ca.cert, ca.cert, ca.cert, ca.cert, ca.cert, ca.cert), reason: port.ReasonMalformedSVID, says: "at most 8"},
		"no URI":                            {chain: leaf(func(c *x509.Certificate) { c.URIs = nil }), reason: port.ReasonMalformedSVID, says: "it has 0 URI names, not exactly one"},
		"two URIs":                          {chain: leaf(func(c *x509.Certificate) { c.URIs = append(c.URIs, uri("https://example.org/")) }), reason: port.ReasonMalformedSVID, says: "it has 2 URI names, not exactly one"},
		"another scheme":                    {chain: leaf(func(c *x509.Certificate) { c.URIs = []*url.URL{uri("https://eu.example.org/x")} }), reason: port.ReasonMalformedSVID, says: "its URI name is no SPIFFE ID"},
		"no path":                           {chain: leaf(func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://eu.example.org")} }), reason: port.ReasonMalformedSVID, says: "spiffe://eu.example.org has no path"},
		"an authority":                      {chain: leaf(func(c *x509.Certificate) { c.IsCA = true }), reason: port.ReasonMalformedSVID, says: "is a certificate authority"},
		"no key usage":                      {chain: leaf(usage(0)), reason: port.ReasonMalformedSVID, says: "is not present and critical"},
		"no digitalSignature":               {chain: leaf(usage(x509.KeyUsageKeyEncipherment)), reason: port.ReasonMalformedSVID, says: "lacks digitalSignature"},
		"keyCertSign":                       {chain: leaf(usage(x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign)), reason: port.ReasonMalformedSVID, says: "allows to sign certificates"},
		"cRLSign":                           {chain: leaf(usage(x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign)), reason: port.ReasonMalformedSVID, says: "allows to sign certificates"},
		"client authentication alone":       {chain: leaf(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), reason: port.ReasonMalformedSVID, says: "lacks server or client authentication"},
		"empty subject, SAN not critical":   {chain: leaf(emptySubject), reason: port.ReasonMalformedSVID, says: "its alternative name is not critical"},
		"an authority's own certificate":    {chain: []*x509.Certificate{ca.cert}, reason: port.ReasonMalformedSVID, says: "has no path"},
		"an intermediate with a path":       {chain: below(func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://eu.example.org/ca")} }), reason: port.ReasonUnverifiedSVID, says: "spiffe://eu.example.org/ca signs, but has a path"},
		"an intermediate that may not sign": {chain: below(usage(x509.KeyUsageDigitalSignature)), reason: port.ReasonUnverifiedSVID, says: "does not verify"},
		"an intermediate left out":          {chain: below()[:1], reason: port.ReasonUnverifiedSVID, says: "does not verify against the bundle of eu.example.org (1 X.509 authorities)"},
		"another domain's anchor":           {chain: []*x509.Certificate{newAuthority(t, "eu.example.org", today).issue(id, tomorrow).Leaf}, reason: port.ReasonUnverifiedSVID, says: "does not verify"},
		"a domain without relationship":     {chain: []*x509.Certificate{ca.issue("spiffe://us.example.org/x", tomorrow).Leaf}, reason: port.ReasonUntrustedDomain, says: "callers of trust domain us.example.org are not trusted here: there is no relationship with it"},
		"expired":                           {chain: []*x509.Certificate{ca.issue(id, today.Add(-time.Minute)).Leaf}, reason: port.ReasonExpiredSVID, says: "expired at 2026-11-22T11:59:00Z; present a renewed one"},
		"not valid yet":                     {chain: leaf(func(c *x509.Certificate) { c.NotBefore = today.Add(time.Minute) }), reason: port.ReasonUnverifiedSVID, says: "does not verify"},
	} {
		t.Run(name, func(t *testing.T) {
			got, until, err := port.VerifySVID(c.chain, ca.bundles("eu.example.org"), today)
			if c.reason == "" {
				require.NoError(t, err)
				assert.Equal(t, id, got.String())
				assert.Equal(t, tomorrow, until)
				return
			}
			require.Error(t, err)
			assert.Equal(t, c.reason, port.ReasonOf(err))
			assert.ErrorContains(t, err, c.says)
		})
	}
}

// emptySubject leaves the subject out, and writes the alternative name itself, without the mark that Go would
// give it.
func emptySubject(c *x509.Certificate) {
	c.Subject = pkix.Name{}
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(c.URIs[0].String())}})
	if err != nil {
		panic(err)
	}
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	c.URIs = nil
}
