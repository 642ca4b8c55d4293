package svid

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
)

// TestLint breaks one rule at a time, and checks that the signer is never called.
func TestLint(t *testing.T) {
	now := time.Now()
	caKey, ca := selfSignedCA(t, now, time.Hour)
	id := spiffeid.RequireFromString(workload(1))
	for name, test := range map[string]struct {
		change func(*x509.Certificate)
		rule   string
	}{
		"CA": {func(c *x509.Certificate) { c.IsCA = true }, "a leaf is no CA"},
		"certSign": {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "a leaf's key " +
			"usage is digitalSignature alone"},
		"no key usage": {func(c *x509.Certificate) { c.KeyUsage = 0 }, "key usage is present and critical"},
		"no constraints": {func(c *x509.Certificate) { c.BasicConstraintsValid = false }, "basic constraints are " +
			"present and critical"},
		"two URIs": {func(c *x509.Certificate) { c.URIs = append(c.URIs, id.URL()) }, "a certificate has " +
			"exactly one URI name"},
		"another ID": {
			func(c *x509.Certificate) { c.URIs[0] = spiffeid.RequireFromString(workload(2)).URL() },
			"the URI name is spiffe://eu.example.org/web/1",
		},
		"server only": {func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, "a leaf's extended " +
			"key usage is serverAuth and clientAuth"},
		"outlives": {
			func(c *x509.Certificate) { c.NotAfter = ca.NotAfter.Add(time.Second) },
			"a leaf lives within the life of its authority",
		},
		"begins before": {
			func(c *x509.Certificate) { c.NotBefore = ca.NotBefore.Add(-time.Second) },
			"a leaf lives within the life of its authority",
		},
		"IP address": {func(c *x509.Certificate) { c.IPAddresses = []net.IP{{10, 0, 0, 1}} }, "a leaf names " +
			"a URI and DNS names and nothing else"},
		"wildcard": {func(c *x509.Certificate) { c.DNSNames = []string{"*.example.org"} }, "is not a " +
			"DNS name"},
		"backwards in time": {func(c *x509.Certificate) { c.NotAfter = c.NotBefore }, "a certificate begins before " +
			"it ends"},
	} {
		t.Run(name, func(t *testing.T) {
			leafKey, err := keys.Generate()
			require.NoError(t, err)
			template := leafTemplate(t, id, leafKey.Public(), now, 10*time.Minute, ca)
			test.change(template)
			watched := &watchedSigner{Signer: caKey}
			_, err = x509.CreateCertificate(rand.Reader, template, ca, leafKey.Public(),
				linted{watched, LintLeaf(id, ca)})
			require.ErrorIs(t, err, ErrLint)
			require.ErrorContains(t, err, test.rule)
			require.Zero(t, watched.calls, "the key signed what breaks a rule")
		})
	}
	require.ErrorIs(t, LintCA(home)(issueLeaf(t, id, caKey, ca, now)), ErrLint)
	require.ErrorContains(
		t,
		LintCA(spiffeid.RequireTrustDomainFromString("us.example.org"))(ca),
		"the URI name is spiffe://us.example.org",
	)
}

func issueLeaf(t *testing.T, id spiffeid.ID, key crypto.Signer, ca *x509.Certificate, now time.Time) *x509.Certificate {
	t.Helper()
	leafKey, err := keys.Generate()
	require.NoError(t, err)
	template := leafTemplate(t, id, leafKey.Public(), now, time.Minute, ca)
	der, err := x509.CreateCertificate(rand.Reader, template, ca, leafKey.Public(), linted{key, LintLeaf(id, ca)})
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return leaf
}

// watchedSigner counts its calls.
type watchedSigner struct {
	crypto.Signer
	calls int
}

func (w *watchedSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	w.calls++
	return w.Signer.Sign(r, digest, o)
}

func TestLintClaims(t *testing.T) {
	id := spiffeid.RequireFromString(workload(1))
	now := time.Now().Truncate(time.Second)
	good := func() jwt.Claims {
		return jwt.Claims{
			Subject: id.String(), Audience: []string{"a"}, IssuedAt: jwt.NewNumericDate(now),
			Expiry: jwt.NewNumericDate(now.Add(time.Minute)),
		}
	}
	require.NoError(t, LintClaims(good(), id, now.Add(time.Minute)))
	for rule, change := range map[string]func(*jwt.Claims){
		"sub is the SPIFFE ID of a " +
			"workload": func(c *jwt.Claims) { c.Subject = "spiffe://eu.example.org/other" },
		"a token has iat and exp, and ends after it begins": func(c *jwt.Claims) { c.Expiry = nil },
		"a token lives within the life of its " +
			"authority": func(c *jwt.Claims) { c.Expiry = jwt.NewNumericDate(now.Add(time.Hour)) },
		"audience is empty": func(c *jwt.Claims) { c.Audience = nil },
	} {
		claims := good()
		change(&claims)
		err := LintClaims(claims, id, now.Add(time.Minute))
		require.ErrorIs(t, err, ErrLint)
		require.ErrorContains(t, err, rule)
	}
}
