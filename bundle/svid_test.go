package bundle_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

func TestVerifySVID(t *testing.T) {
	ca := newAuthority(t, home)
	id := spiffeid.RequireFromString("spiffe://eu.example.org/workload")
	parsed := func(text string) *url.URL {
		u, err := url.Parse(text)
		require.NoError(t, err)
		return u
	}
	// Go marks key usage as critical on its own; an extension given by hand replaces its own.
	usage := func(critical bool) []pkix.Extension {
		return []pkix.Extension{{Id: []int{2, 5, 29, 15}, Critical: critical, Value: []byte{3, 2, 7, 0x80}}}
	}
	for _, test := range []struct {
		name   string
		change func(*x509.Certificate)
		reason string
		text   string
	}{
		{"as issued", func(*x509.Certificate) {}, "ok", ""},
		{"no extended key usage", func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "ok", ""},
		{"empty subject, critical SAN", func(c *x509.Certificate) { c.Subject = pkix.Name{} }, "ok", ""},
		{"no URI", func(c *x509.Certificate) { c.URIs = nil }, "not_an_svid", "the certificate is not a valid X509-SVID: it has 0 URI SANs, an X509-SVID has one"},
		{"two URIs", func(c *x509.Certificate) { c.URIs = append(c.URIs, id.URL()) }, "not_an_svid", "the certificate is not a valid X509-SVID: it has 2 URI SANs, an X509-SVID has one"},
		{"another scheme", func(c *x509.Certificate) { c.URIs = []*url.URL{parsed("https://eu.example.org/workload")} }, "not_an_svid",
			`the certificate is not a valid X509-SVID: SPIFFE ID "https://eu.example.org/workload": the string is not a valid SPIFFE ID: it does not begin with "spiffe://"`},
		{"no path", func(c *x509.Certificate) { c.URIs = []*url.URL{home.ID().URL()} }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org: the ID of a leaf has a path"},
		{"a CA", func(c *x509.Certificate) { c.IsCA = true }, "not_an_svid", "the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: it is a CA certificate"},
		{"no key usage", func(c *x509.Certificate) { c.KeyUsage = 0 }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage is not there or not critical"},
		{"key usage not critical", func(c *x509.Certificate) { c.KeyUsage, c.ExtraExtensions = 0, usage(false) }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage is not there or not critical"},
		{"no digitalSignature", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage has no digitalSignature"},
		{"keyCertSign", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage has keyCertSign or cRLSign"},
		{"cRLSign", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage has keyCertSign or cRLSign"},
		{"server authentication alone", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its extended key usage does not have both serverAuth and clientAuth"},
		{"empty subject, SAN not critical", func(c *x509.Certificate) {
			c.Subject = pkix.Name{}
			c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 17}, Value: uriSAN(t, id.String())}}
		}, "not_an_svid", "the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its subject is empty and its subject alternative name is not critical"},
		{"expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, "svid_time", "the X509-SVID or an authority above it is not valid now: "},
		{"not valid yet", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, "svid_time", "the X509-SVID or an authority above it is not valid now: "},
		{"an unknown critical extension", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}, "untrusted_svid", "x509: unhandled critical extension"},
		{"another domain", func(c *x509.Certificate) { c.URIs = []*url.URL{parsed("spiffe://us.example.org/x")} }, "no_bundle",
			"there is no bundle to verify the X509-SVID with: spiffe://us.example.org/x: this is the bundle of eu.example.org, not of us.example.org"},
	} {
		t.Run(test.name, func(t *testing.T) {
			template := svidTemplate(id)
			test.change(template)
			leaf := ca.sign(t, template).Leaf
			got, err := bundle.VerifySVID([]*x509.Certificate{leaf}, newBundle(t, home, 1, ca), time.Now())
			require.Equal(t, test.reason, bundle.Reason(err), "%v", err)
			if test.text != "" {
				require.ErrorContains(t, err, test.text)
				require.True(t, got.IsZero())
				return
			}
			require.NoError(t, err)
			require.Equal(t, id, got)
		})
	}

	_, err := bundle.VerifySVID(nil, newBundle(t, home, 1, ca), time.Now())
	require.EqualError(t, err, "the certificate is not a valid X509-SVID: there is no certificate")
	_, err = bundle.VerifySVID(make([]*x509.Certificate, 11), newBundle(t, home, 1, ca), time.Now())
	require.EqualError(t, err, "the certificate is not a valid X509-SVID: it comes with 11 certificates, at most 10 are allowed")
}

// uriSAN encodes a subject alternative name of one URI.
func uriSAN(t *testing.T, uri string) []byte {
	t.Helper()
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}})
	require.NoError(t, err)
	return value
}

func TestVerifySVIDThroughIntermediates(t *testing.T) {
	ca := newAuthority(t, home)
	for _, test := range []struct {
		name   string
		change func(*x509.Certificate)
		text   string
	}{
		{"with the domain's ID", func(*x509.Certificate) {}, ""},
		{"without an ID", func(c *x509.Certificate) { c.URIs = nil }, ""},
		{"with a path", func(c *x509.Certificate) {
			c.URIs = []*url.URL{spiffeid.RequireFromString("spiffe://eu.example.org/ca").URL()}
		}, "a signing certificate above it has the ID spiffe://eu.example.org/ca"},
		{"of another domain", func(c *x509.Certificate) { c.URIs = []*url.URL{foreign.ID().URL()} }, "a signing certificate above it has the ID spiffe://us.example.org"},
		{"without keyCertSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, "does not lead to an authority"},
		{"without key usage", func(c *x509.Certificate) { c.KeyUsage = 0 }, "a signing certificate above it has no critical key usage with keyCertSign"},
	} {
		t.Run(test.name, func(t *testing.T) {
			template := caTemplate(home)
			test.change(template)
			between := ca.intermediate(t, template)
			leaf := between.svid(t, "spiffe://eu.example.org/workload").Leaf
			_, err := bundle.VerifySVID([]*x509.Certificate{leaf, between.cert}, newBundle(t, home, 1, ca), time.Now())
			if test.text == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.text)
			require.Equal(t, "untrusted_svid", bundle.Reason(err))
		})
	}
}
