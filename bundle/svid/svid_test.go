package svid_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/svid"
)

func TestVerifySVID(t *testing.T) {
	ca := bundletest.NewAuthority(t, bundletest.Home)
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
	early, late := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2090, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		name   string
		change func(*x509.Certificate)
		reason string
		text   string
	}{
		{"as issued", func(*x509.Certificate) {}, "ok", ""},
		{"no extended key usage", func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "ok", ""},
		{"empty subject, critical SAN", func(c *x509.Certificate) { c.Subject = pkix.Name{} }, "ok", ""},
		{"no URI", func(c *x509.Certificate) { c.URIs = nil }, "not_an_svid",
			"the certificate is not a valid X509-SVID: it has 0 URI SANs, an X509-SVID has one"},
		{"two URIs", func(c *x509.Certificate) { c.URIs = append(c.URIs, id.URL()) }, "not_an_svid",
			"the certificate is not a valid X509-SVID: it has 2 URI SANs, an X509-SVID has one"},
		{"another scheme", func(c *x509.Certificate) { c.URIs = []*url.URL{parsed("https://eu.example.org/workload")} },
			"not_an_svid",
			`the certificate is not a valid X509-SVID: SPIFFE ID "https://eu.example.org/workload": the string is ` +
				`not a valid SPIFFE ID: it does not begin with "spiffe://"`},
		{"no path", func(c *x509.Certificate) { c.URIs = []*url.URL{bundletest.Home.ID().URL()} }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org: the ID of a leaf has a path"},
		{"a CA", func(c *x509.Certificate) { c.IsCA = true }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: it is a CA certificate"},
		{"no key usage", func(c *x509.Certificate) { c.KeyUsage = 0 }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage is not there " +
				"or not critical"},
		{"key usage not critical", func(c *x509.Certificate) { c.KeyUsage, c.ExtraExtensions = 0, usage(false) },
			"not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage is not there " +
				"or not critical"},
		{"no digitalSignature", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage has no " +
				"digitalSignature"},
		{"keyCertSign", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage has " +
				"keyCertSign or cRLSign"},
		{"cRLSign", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its key usage has " +
				"keyCertSign or cRLSign"},
		{"server authentication alone",
			func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "not_an_svid",
			"the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its extended key usage does " +
				"not have both serverAuth and clientAuth"},
		{"empty subject, SAN not critical", func(c *x509.Certificate) {
			c.Subject = pkix.Name{}
			c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 17}, Value: uriSAN(t, id.String())}}
		}, "not_an_svid", "the certificate is not a valid X509-SVID: spiffe://eu.example.org/workload: its subject " +
			"is empty and its subject alternative name is not critical"},
		{"expired", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = early, early.Add(time.Hour) }, "svid_expired",
			"the X509-SVID has expired: spiffe://eu.example.org/workload: it ended at 2020-01-02T04:04:05Z; present " +
				"a renewed one"},
		{"not valid yet", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = late, late.Add(time.Hour) },
			"svid_not_yet_valid",
			"the X509-SVID is not valid yet: spiffe://eu.example.org/workload: it begins at 2090-01-02T03:04:05Z; " +
				"compare the clocks"},
		{"an unknown critical extension", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}, "untrusted_svid", "extension 1.2.3: it is critical, and Go does not support it, or not all of it"},
		{"another domain", func(c *x509.Certificate) { c.URIs = []*url.URL{parsed("spiffe://us.example.org/x")} },
			"no_bundle",
			"there is no bundle to verify the X509-SVID with: spiffe://us.example.org/x: this is the bundle of " +
				"eu.example.org, not of us.example.org"},
	} {
		t.Run(test.name, func(t *testing.T) {
			template := bundletest.SVIDTemplate(id)
			test.change(template)
			leaf := ca.Sign(t, template).Leaf
			got, err := svid.Verify(
				[]*x509.Certificate{leaf},
				bundletest.NewBundle(t, bundletest.Home, 1, ca),
				time.Now(),
			)
			require.Equal(t, test.reason, bundle.Reason(err), "%v", err)
			if test.text != "" {
				require.ErrorContains(t, err, test.text)
				require.Zero(t, got)
				return
			}
			require.NoError(t, err)
			require.Equal(t, svid.Verified{ID: id, Until: leaf.NotAfter}, got)
		})
	}

	_, err := svid.Verify(nil, bundletest.NewBundle(t, bundletest.Home, 1, ca), time.Now())
	require.EqualError(t, err, "there is no certificate; an X509-SVID is required")
	require.Equal(t, "no_svid", bundle.Reason(err))
	_, err = svid.Verify(make([]*x509.Certificate, 9), bundletest.NewBundle(t, bundletest.Home, 1, ca), time.Now())
	require.EqualError(
		t,
		err,
		"the certificate is not a valid X509-SVID: it comes with 9 certificates, at most 8 are allowed",
	)
}

// uriSAN encodes a subject alternative name of one URI.
func uriSAN(t *testing.T, uri string) []byte {
	t.Helper()
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}})
	require.NoError(t, err)
	return value
}

func TestVerifySVIDThroughIntermediates(t *testing.T) {
	ca := bundletest.NewAuthority(t, bundletest.Home)
	for _, test := range []struct {
		name   string
		change func(*x509.Certificate)
		text   string
	}{
		{"with the domain's ID", func(*x509.Certificate) {}, ""},
		{"without an ID", func(c *x509.Certificate) { c.URIs = nil }, ""},
		{"with a path", func(c *x509.Certificate) {
			c.URIs = []*url.URL{spiffeid.RequireFromString("spiffe://eu.example.org/ca").URL()}
		}, "subject alternative name: a signing certificate of eu.example.org has the ID spiffe://eu.example.org/ca"},
		{"of another domain", func(c *x509.Certificate) { c.URIs = []*url.URL{bundletest.Foreign.ID().URL()} },
			"subject alternative name: a signing certificate of eu.example.org has the ID spiffe://us.example.org"},
		{"without keyCertSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature },
			"does not lead to an authority"},
		{"expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
			`certificate "CN=authority of eu.example.org" (serial `},
		{"without key usage", func(c *x509.Certificate) { c.KeyUsage = 0 },
			"key usage: it is missing, and go-spiffe requires keyCertSign below an anchor"},
	} {
		t.Run(test.name, func(t *testing.T) {
			template := bundletest.CATemplate(bundletest.Home)
			test.change(template)
			between := ca.Intermediate(t, template)
			leaf := between.SVID(t, "spiffe://eu.example.org/workload").Leaf
			_, err := svid.Verify(
				[]*x509.Certificate{leaf, between.Cert},
				bundletest.NewBundle(t, bundletest.Home, 1, ca),
				time.Now(),
			)
			if test.text == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.text)
			require.Equal(t, "untrusted_svid", bundle.Reason(err))
		})
	}
}

// TestVerifySVIDNeedsAPath: an otherwise valid certificate without a path to an authority of its domain is rejected.
func TestVerifySVIDNeedsAPath(t *testing.T) {
	ca, other := bundletest.NewAuthority(t, bundletest.Home), bundletest.NewAuthority(t, bundletest.Home)
	between := ca.Intermediate(t, bundletest.CATemplate(bundletest.Home))
	leaf := between.SVID(t, "spiffe://eu.example.org/workload").Leaf
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		text  string
	}{
		"the intermediate is left out": {[]*x509.Certificate{leaf}, "signed by unknown authority"},
		"another anchor of the name": {[]*x509.Certificate{other.SVID(t, "spiffe://eu.example.org/workload").Leaf},
			"signed by unknown authority"},
		"the anchor sent along": {[]*x509.Certificate{other.SVID(t, "spiffe://eu.example.org/workload").Leaf,
			other.Cert}, "signed by unknown authority"},
		"an anchor presented as a leaf": {[]*x509.Certificate{ca.Cert}, "the ID of a leaf has a path"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := svid.Verify(test.chain, bundletest.NewBundle(t, bundletest.Home, 1, ca), time.Now())
			require.ErrorContains(t, err, test.text)
		})
	}

	// A source that is not a Bundle might hold a leaf: that does not make the leaf an SVID.
	holdsLeaf := x509bundle.FromX509Authorities(bundletest.Home, []*x509.Certificate{leaf})
	_, err := svid.Verify([]*x509.Certificate{leaf}, holdsLeaf, time.Now())
	require.ErrorIs(t, err, svid.ErrUntrusted)
	require.ErrorContains(t, err, "it stands in the bundle itself")
}

// An SVID holds until the first certificate of its path ends, and by the longest of its paths.
func TestVerifySVIDUntil(t *testing.T) {
	now := time.Now()
	until := func(t *testing.T, chain []*x509.Certificate, authorities ...bundletest.Authority) time.Time {
		t.Helper()
		verified, err := svid.Verify(chain, bundletest.NewBundle(t, bundletest.Home, 1, authorities...), now)
		require.NoError(t, err)
		return verified.Until
	}
	ending := func(after time.Duration) *x509.Certificate {
		template := bundletest.CATemplate(bundletest.Home)
		template.NotAfter = now.Add(after)
		return template
	}
	key := bundletest.NewKey(t)
	soon, later := bundletest.NewAuthorityWith(
		t,
		key,
		ending(10*time.Minute),
	), bundletest.NewAuthorityWith(
		t,
		key,
		ending(30*time.Minute),
	)
	leaf := soon.SVID(t, "spiffe://eu.example.org/workload").Leaf
	require.Equal(t, soon.Cert.NotAfter, until(t, []*x509.Certificate{leaf}, soon), "the anchor ends first")
	require.Equal(t, later.Cert.NotAfter, until(t, []*x509.Certificate{leaf}, soon, later), "the longest path")

	between := later.Intermediate(t, ending(20*time.Minute))
	leaf = between.SVID(t, "spiffe://eu.example.org/workload").Leaf
	require.Equal(
		t,
		between.Cert.NotAfter,
		until(t, []*x509.Certificate{leaf, between.Cert}, later),
		"the intermediate ends first",
	)
}
