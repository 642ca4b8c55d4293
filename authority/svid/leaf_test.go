package svid

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
)

// template returns the template from which x509.CreateCertificate makes the leaf.
func (l Leaf) template() *x509.Certificate {
	var ips []net.IP
	for _, ip := range l.IPs {
		ips = append(ips, ip.AsSlice())
	}
	return &x509.Certificate{
		SerialNumber: l.Serial, NotBefore: l.notBefore, NotAfter: l.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, SubjectKeyId: keyIDOf(l.spki),
		URIs: []*url.URL{l.id.URL()}, DNSNames: l.dnsNames, IPAddresses: ips,
	}
}

func leafTemplate(
	t testing.TB, id spiffeid.ID, key crypto.PublicKey, now time.Time, ttl time.Duration, issuer *x509.Certificate,
) *x509.Certificate {
	t.Helper()
	return newTestLeaf(t, id, key, nil, now, ttl, issuer).template()
}

func newTestLeaf(
	t testing.TB, id spiffeid.ID, key crypto.PublicKey, dnsNames []string, now time.Time, ttl time.Duration,
	issuer *x509.Certificate,
) Leaf {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key)
	require.NoError(t, err)
	l, err := NewLeaf(id, spki, dnsNames, now, ttl, issuer)
	require.NoError(t, err)
	return l
}

// selfSignedCA returns an authority of the home domain.
func selfSignedCA(t testing.TB, now time.Time, ttl time.Duration) (crypto.Signer, *x509.Certificate) {
	t.Helper()
	key, err := keys.Generate()
	require.NoError(t, err)
	template, err := CATemplate(home, key.Public(), "authority", now, now.Add(ttl), 0)
	require.NoError(t, err)
	ca, err := SignCertificate(template, template, key.Public(), key, LintCA(home))
	require.NoError(t, err)
	return key, ca
}

// TestLeafIsWhatTheLibraryWrites compares the certificates of this package with those of x509.CreateCertificate, byte
// for byte, for every kind of key, with and without names, and on both sides of the year 2050.
func TestLeafIsWhatTheLibraryWrites(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	p256, err := keys.Generate()
	require.NoError(t, err)
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	id := spiffeid.RequireFromString("spiffe://eu.example.org/web/a-b_c.D/1")
	for year, now := range map[string]time.Time{
		"2026": time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), "2049": time.Date(2049, 12, 31, 23, 59, 30, 0, time.UTC),
		"2051": time.Date(2051, 2, 28, 0, 0, 0, 0, time.FixedZone("", 3600)),
	} {
		caKey, ca := selfSignedCA(t, now, 24*time.Hour)
		for kind, key := range map[string]crypto.PublicKey{
			"rsa": rsaKey.Public(), "p384": p384.Public(), "p256": p256.Public(), "ed25519": ed,
		} {
			for names, dnsNames := range map[string][]string{"no names": nil, "names": {"web", "web.example.org"}} {
				t.Run(year+" "+kind+" "+names, func(t *testing.T) {
					id := id
					if dnsNames != nil {
						id = spiffeid.RequireFromString(
							"spiffe://eu.example.org/entente/member/eu-1",
						) // what has an address too
					}
					for range 20 { // serial numbers of several lengths
						l := newTestLeaf(t, id, key, dnsNames, now, time.Hour, ca)
						if dnsNames != nil {
							l.IPs = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
						}
						made, err := l.Sign(ca, caKey, LintLeaf(id, ca))
						require.NoError(t, err)
						ours, err := x509.ParseCertificate(made)
						require.NoError(t, err)
						require.NoError(t, ours.CheckSignatureFrom(ca))
						made, err = x509.CreateCertificate(rand.Reader, l.template(), ca, key, caKey)
						require.NoError(t, err)
						theirs, err := x509.ParseCertificate(made)
						require.NoError(t, err)
						require.Equal(t, theirs.RawTBSCertificate, ours.RawTBSCertificate)
					}
				})
			}
		}
	}
}

// TestLeafBreaksNoRule: whatever a defect elsewhere puts into a leaf, the key does not sign it.
func TestLeafBreaksNoRule(t *testing.T) {
	now := time.Now()
	caKey, ca := selfSignedCA(t, now, time.Hour)
	_, otherCA := selfSignedCA(t, now, time.Hour)
	id := spiffeid.RequireFromString(workload(1))
	public, err := keys.Generate()
	require.NoError(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	weak, err := x509.MarshalPKIXPublicKey(p224.Public())
	require.NoError(t, err)
	for rule, change := range map[string]func(*Leaf){
		"the URI name is " +
			"spiffe://eu.example.org/web/1": func(l *Leaf) { l.id = spiffeid.RequireFromString(workload(2)) },
		"a leaf lives within the life of its authority": func(l *Leaf) { l.NotAfter = ca.NotAfter.Add(time.Second) },
		"a certificate begins before it ends":           func(l *Leaf) { l.NotAfter = l.notBefore },
		"is not a DNS name":                             func(l *Leaf) { l.dnsNames = []string{"*.example.org"} },
		"is requested twice":                            func(l *Leaf) { l.dnsNames = []string{"web", "web"} },
		"use P-256 or P-384":                            func(l *Leaf) { l.spki = weak },
		"it is not a certificate":                       func(l *Leaf) { l.spki = []byte("no key") },
		"serial number":                                 func(l *Leaf) { l.Serial = l.Serial.Neg(l.Serial) },
	} {
		l := newTestLeaf(t, id, public.Public(), nil, now, time.Minute, ca)
		change(&l)
		watched := &watchedSigner{Signer: caKey}
		_, err := l.Sign(ca, watched, LintLeaf(id, ca))
		require.ErrorContains(t, err, rule)
		require.ErrorIs(t, err, ErrLint)
		require.Zero(t, watched.calls, "the key signed what breaks a rule")
	}
	// The issuer has to be the authority that lint checks against.
	l := newTestLeaf(t, id, public.Public(), nil, now, time.Minute, ca)
	_, err = l.Sign(otherCA, caKey, LintLeaf(id, ca))
	require.ErrorContains(t, err, "the authority key identifier is the issuer's")
}

// forger returns the signature of something else.
type forger struct{ crypto.Signer }

func (f forger) Sign(r io.Reader, _ []byte, o crypto.SignerOpts) ([]byte, error) {
	other := sha256.Sum256([]byte("something else"))
	return f.Signer.Sign(r, other[:], o)
}

// TestSignaturesFromElsewhereAreVerified: a key outside of this process can return anything.
func TestSignaturesFromElsewhereAreVerified(t *testing.T) {
	key, err := keys.Generate()
	require.NoError(t, err)
	_, err = keys.SignDigest(forger{key}, sha256.Sum256([]byte("a")))
	require.EqualError(t, err, "the signature that came back does not verify with the authority's key")
	_, err = keys.SignDigest(struct{ crypto.Signer }{key}, sha256.Sum256([]byte("a")))
	require.NoError(t, err)
	for _, broken := range [][]byte{nil, {0x30, 0}, []byte("no signature"), {0x30, 6, 2, 1, 0xff, 2, 1, 1}} {
		_, err = JWSSignature(broken)
		require.EqualError(t, err, "the key did not make a P-256 signature")
	}
}

// TestTokenIsWhatJOSEReads signs many tokens, since the numbers of one signature in 128 are shorter than the others.
func TestTokenIsWhatJOSEReads(t *testing.T) {
	key, err := keys.Generate()
	require.NoError(t, err)
	header, err := TokenHeader("kid1")
	require.NoError(t, err)
	want := jwt.Claims{
		ID:       "1",
		Issuer:   "https://oidc.example.org",
		Subject:  workload(1),
		Audience: jwt.Audience{"a<b>&c", "\u00e4"},
		IssuedAt: jwt.NewNumericDate(time.Unix(1e9, 0)),
		Expiry:   jwt.NewNumericDate(time.Unix(2e9, 0)),
	}
	for range 400 {
		token, err := SignToken(header, want, key)
		require.NoError(t, err)
		parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
		require.NoError(t, err)
		require.Equal(t, "kid1", parsed.Headers[0].KeyID)
		var got jwt.Claims
		require.NoError(t, parsed.Claims(key.Public(), &got))
		require.Equal(t, want, got)
	}
}
