package upstream

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/netip"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/svid"
)

var home = spiffeid.RequireTrustDomainFromString("eu.example.org")

// TestSelfSignedRoots: a root signs for half of its life, a rotation of anchors makes a new one, and what nothing is
// below any more is deleted.
func TestSelfSignedRoots(t *testing.T) {
	store, err := keys.OpenFolder(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	selfSigned := NewSelfSigned(store, 100*time.Hour)
	now := time.Now().Truncate(time.Second)
	anchor := func(at time.Time, newAnchor bool) *x509.Certificate {
		key, err := keys.Generate()
		require.NoError(t, err)
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		require.NoError(t, err)
		csr, err := x509.ParseCertificateRequest(der)
		require.NoError(t, err)
		signed, err := selfSigned.SignCA(t.Context(),
			Request{TrustDomain: home, CSR: csr, Now: at, TTL: 24 * time.Hour, NewAnchor: newAnchor})
		require.NoError(t, err)
		checks(t, key, signed, at, time.Hour)
		return signed.Anchors[0]
	}
	first := anchor(now, false)
	require.True(t, first.Equal(anchor(now.Add(49*time.Hour), false)))
	second := anchor(now.Add(50*time.Hour), false)
	require.False(t, first.Equal(second), "half of its life has passed")
	third := anchor(now.Add(50*time.Hour), true)
	require.False(t, second.Equal(third))
	fourth := anchor(now.Add(20*time.Hour), false)
	require.False(t, third.Equal(fourth), "a root that a clock made that was ahead cannot sign yet")
	require.True(t, fourth.Equal(anchor(now.Add(20*time.Hour), false)),
		"the newest is the newest, whatever the clock shows")

	require.NoError(t, selfSigned.Prune(func(c *x509.Certificate) bool { return c.Equal(fourth) }))
	names, err := store.Names(t.Context())
	require.NoError(t, err)
	require.Len(t, names, 1)
	_, err = NewSelfSigned(store, 50*time.Hour).SignCA(t.Context(), Request{TrustDomain: home, TTL: 24 * time.Hour})
	require.EqualError(t, err,
		"the root lives for 50h0m0s, and a signing certificate for 24h0m0s; raise root_ttl to four times ca_ttl")
}

// A root signs until half of its life has passed, although its successor is there. Then that takes over.
func TestChooseRoot(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	of := func(number uint64, begin, end int) root {
		return root{number: number, Certificate: &x509.Certificate{
			Raw: []byte{byte(number)}, NotBefore: now.AddDate(0, 0, begin), NotAfter: now.AddDate(0, 0, end),
		}}
	}
	one := func(number byte) func(*x509.Certificate) bool {
		return func(c *x509.Certificate) bool { return c.Raw[0] == number }
	}
	present, past := of(1, -20, 60), of(1, -50, 30)
	for name, c := range map[string]struct {
		roots []root
		r     Request
		want  uint64 // 0: a new one
	}{
		"none":                         {nil, Request{}, 0},
		"one without an authority":     {[]root{present}, Request{}, 1},
		"one in use":                   {[]root{present}, Request{InUse: one(1)}, 1},
		"one that signs no more":       {[]root{past}, Request{InUse: one(1)}, 0},
		"one and its successor":        {[]root{present, of(2, -1, 79)}, Request{InUse: one(1), Reserved: one(2)}, 1},
		"the successor takes over":     {[]root{past, of(2, -30, 50)}, Request{InUse: one(1), Reserved: one(2)}, 2},
		"the successor has taken over": {[]root{past, of(2, -30, 50)}, Request{InUse: one(2)}, 2},
		"all authorities have expired": {[]root{present, of(2, -1, 79)}, Request{Reserved: one(2)}, 1},
		"all have, and it is past":     {[]root{past, of(2, -30, 50)}, Request{Reserved: one(2)}, 2},
		"the newest in use":            {[]root{present, of(2, -5, 75), of(3, -1, 79)}, Request{InUse: one(2)}, 2},
		"made for a failed request":    {[]root{past, of(2, 0, 80)}, Request{InUse: one(1)}, 2},
		"the one in use is refused": {
			[]root{present, of(2, -1, 79)}, Request{InUse: one(1), Reserved: one(2), Refused: one(1)}, 2,
		},
		"the successor is refused": {[]root{past, of(2, -1, 79)}, Request{Reserved: one(2), Refused: one(2)}, 0},
		"a new one is required": {
			[]root{present, of(2, -1, 79)}, Request{InUse: one(1), Reserved: one(2), NewAnchor: true}, 0,
		},
	} {
		c.r.Now = now
		var got uint64
		if chosen := choose(c.roots, c.r); chosen != nil {
			got = chosen.number
		}
		require.Equal(t, c.want, got, name)
	}
}

func TestRootsWithNameConstraints(t *testing.T) {
	store, err := keys.OpenFolder(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	now := time.Now().Truncate(time.Second)
	key, err := keys.Generate()
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	sign := func(constraints bool) *Signed {
		signed, err := NewSelfSigned(store, 100*time.Hour).SignCA(t.Context(), Request{
			TrustDomain: home, CSR: csr, Now: now, TTL: 24 * time.Hour, NewAnchor: true, NameConstraints: constraints,
		})
		require.NoError(t, err)
		checks(t, key, signed, now, time.Hour)
		return signed
	}
	require.Empty(t, sign(false).Anchors[0].PermittedURIDomains, "they are off by default")

	signed := sign(true)
	root := signed.Anchors[0]
	require.Equal(t, []string{"eu.example.org"}, root.PermittedURIDomains)
	require.Empty(t, root.PermittedDNSDomains, "DNS names in SVIDs stay free")
	oidNameConstraints := asn1.ObjectIdentifier{2, 5, 29, 30}
	for _, e := range root.Extensions {
		require.False(t, e.Id.Equal(oidNameConstraints) && e.Critical)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	for id, ok := range map[string]bool{"spiffe://eu.example.org/web": true, "spiffe://us.example.org/web": false} {
		uri, err := url.Parse(id)
		require.NoError(t, err)
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(time.Hour), URIs: []*url.URL{uri},
			DNSNames: []string{"web.example.com"},
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, signed.Chain[0], key.Public(), key)
		require.NoError(t, err)
		parsed, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		between := x509.NewCertPool()
		between.AddCert(signed.Chain[0])
		_, err = parsed.Verify(x509.VerifyOptions{
			Roots: pool, Intermediates: between, CurrentTime: now.Add(time.Minute),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		require.Equal(t, ok, err == nil, "%s: %v", id, err)
	}
}

// TestCheck: what an upstream returns is refused unless it is a signing certificate for the key below its anchor.
func TestCheck(t *testing.T) {
	now := time.Now()
	store := keys.NewMemory()
	key, err := keys.Generate()
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	signed, err := NewSelfSigned(store,
		365*24*time.Hour).SignCA(t.Context(), Request{TrustDomain: home, CSR: csr, Now: now, TTL: time.Hour})
	require.NoError(t, err)
	checks(t, key, signed, now, 10*time.Minute)
	refused := func(c Candidate, want string) {
		t.Helper()
		if c.Key == nil {
			c.Key = key
		}
		if c.Signed == nil {
			c.Signed = signed
		}
		c.TrustDomain, c.Now, c.LongestSVID = home, now, cmp.Or(c.LongestSVID, time.Minute)
		c.Sample = sample(t)
		_, err := Check(c)
		require.ErrorContains(t, err, want)
	}
	refused(Candidate{LongestSVID: time.Hour}, `since "SERIALNUMBER=`)
	refused(Candidate{LongestSVID: time.Hour}, "two SVID lifetimes (2h0m0s) are needed")
	other, err := keys.Generate()
	require.NoError(t, err)
	refused(Candidate{Key: other}, "a certificate for another key")
	refused(Candidate{Signed: &Signed{Chain: signed.Chain, Anchors: signed.Chain}},
		"which is not the self-signed certificate of a CA")
	us := spiffeid.RequireTrustDomainFromString("us.example.org")
	stranger, err := NewSelfSigned(store, 365*24*time.Hour).newRoot(t.Context(), Request{TrustDomain: us, Now: now}, 1)
	require.NoError(t, err)
	refused(Candidate{Signed: &Signed{Chain: signed.Chain, Anchors: []*x509.Certificate{stranger.Certificate}}},
		"does not chain to its anchor")
	refused(Candidate{Signed: &Signed{}}, "returned 0 certificates and 0 anchors")
}

// sample has the names of a member that is reached by a host name.
func sample(t *testing.T) Sample {
	t.Helper()
	s, err := SampleOf(home, home, "eu-1", "eu-1.example.org:7440", "members.example.org")
	require.NoError(t, err)
	return s
}

func checks(t *testing.T, key crypto.Signer, signed *Signed, now time.Time, longest time.Duration) {
	t.Helper()
	until, err := Check(Candidate{
		TrustDomain: home, Key: key, Signed: signed, Now: now, LongestSVID: longest, Sample: sample(t),
	})
	require.NoError(t, err)
	require.Equal(t, signed.Chain[0].NotAfter, until)
}

// TestSampleOf: the sample has the names of the member's own SVID, and in other domains those of the endpoint's.
func TestSampleOf(t *testing.T) {
	us := spiffeid.RequireTrustDomainFromString("us.example.org")
	endpoint := spiffeid.RequireFromString("spiffe://us.example.org/entente/bundle-endpoint")
	member := spiffeid.RequireFromString("spiffe://eu.example.org/entente/member/eu-1")
	for _, test := range []struct {
		td              spiffeid.TrustDomain
		address, shared string
		want            Sample
	}{
		{home, "eu-1.example.org:7440", "", Sample{ID: member, DNSNames: []string{"eu-1.example.org"}}},
		{home, "10.1.2.3:7440", "", Sample{ID: member, IPs: []netip.Addr{netip.MustParseAddr("10.1.2.3")}}},
		{home, "[fd00::1]:7440", "", Sample{ID: member, IPs: []netip.Addr{netip.MustParseAddr("fd00::1")}}},
		{home, "", "", Sample{ID: member}},
		{home, "eu-1.example.org:7440", "all.example.org", Sample{
			ID: member, DNSNames: []string{"eu-1.example.org", "all.example.org"},
		}},
		{home, "all.example.org:7440", "all.example.org", Sample{ID: member, DNSNames: []string{"all.example.org"}}},
		{home, "10.1.2.3:7440", "all.example.org", Sample{
			ID: member, DNSNames: []string{"all.example.org"}, IPs: []netip.Addr{netip.MustParseAddr("10.1.2.3")},
		}},
		{us, "eu-1.example.org:7440", "all.example.org", Sample{ID: endpoint}},
	} {
		got, err := SampleOf(test.td, home, "eu-1", test.address, test.shared)
		require.NoError(t, err)
		require.Equal(t, test.want, got)
	}
	_, err := SampleOf(home, home, "a/b", "", "")
	require.ErrorContains(t, err, `member "a/b" cannot be named by a SPIFFE ID`)
}

// TestSampleIsRefused: what verifiers refuse below a company's CA is refused before anything is signed with it, with
// the certificate and the extension named. The names of the sample are those of the member.
func TestSampleIsRefused(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	key, err := keys.Generate()
	require.NoError(t, err)
	company := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour),
			NotAfter: now.Add(100 * time.Hour), IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	const issuing = `verifiers refuse X509-SVIDs below the upstream's issuer, so that nothing is signed there: ` +
		`certificate "CN=Issuing CA" (serial 9): `
	for _, test := range []struct {
		name   string
		change func(root, issuing *x509.Certificate)
		want   string
	}{
		{"as it should be", func(*x509.Certificate, *x509.Certificate) {}, ""},
		{"key usage not critical", func(_, c *x509.Certificate) {
			c.KeyUsage = 0
			c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 15}, Value: []byte{3, 2, 1, 0x86}}}
		}, ""},
		{"no key usage", func(_, c *x509.Certificate) { c.KeyUsage = 0 },
			issuing + "key usage: it is missing, and go-spiffe requires keyCertSign below an anchor"},
		{"the member's host is not permitted", func(_, c *x509.Certificate) {
			c.PermittedDNSDomains = []string{"corp.example"}
		}, issuing + `name constraints: the DNS name "eu-1.example.org" is in no permitted subtree`},
		{"the member's host is permitted", func(_, c *x509.Certificate) {
			c.PermittedDNSDomains = []string{"example.org"}
		}, ""},
		{"path length", func(_, c *x509.Certificate) { c.MaxPathLenZero = true },
			issuing + "basic constraints: its path length allows 0 signing certificates below it, and there are 1"},
		{"it ends too soon", func(_, c *x509.Certificate) { c.NotAfter = now.Add(90 * time.Minute) },
			`the upstream returned a certificate that lives for another 1h30m0s, since "CN=Issuing CA" ends at ` +
				now.Add(90*time.Minute).UTC().Format(time.RFC3339) + "; two SVID lifetimes (2h0m0s) are needed"},
		{"it ends before the signing certificate", func(_, c *x509.Certificate) { c.NotAfter = now.Add(5 * time.Hour) },
			""},
	} {
		t.Run(test.name, func(t *testing.T) {
			root, issuing := company("Root"), company("Issuing CA")
			test.change(root, issuing)
			sign := func(template, parent *x509.Certificate) *x509.Certificate {
				der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
				require.NoError(t, err)
				cert, err := x509.ParseCertificate(der)
				require.NoError(t, err)
				return cert
			}
			root = sign(root, root)
			issuing = sign(issuing, root)
			template, err := svid.CATemplate(home, key.Public(), "authority", now, now.Add(24*time.Hour), 0)
			require.NoError(t, err)
			signed := &Signed{
				Chain: []*x509.Certificate{sign(template, issuing), issuing}, Anchors: []*x509.Certificate{root},
			}
			until, err := Check(Candidate{
				TrustDomain: home, Key: key, Signed: signed, Now: now, LongestSVID: time.Hour, Sample: sample(t),
			})
			if test.want != "" {
				require.EqualError(t, err, test.want)
				return
			}
			require.NoError(t, err)
			first := signed.Chain[0].NotAfter
			if issuing.NotAfter.Before(first) {
				first = issuing.NotAfter
			}
			require.Equal(t, first, until, "the first certificate of the chain to end")
		})
	}
}
