package authority

import (
	"crypto"
	"crypto/x509"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
)

// defaults returns the settings of a domain that is created without its own.
func defaults() plan.Settings {
	return plan.Settings{
		RefreshHint: plan.DefaultRefreshHint, X509SVIDTTL: plan.DefaultX509SVIDTTL, JWTSVIDTTL: plan.DefaultJWTSVIDTTL,
		CATTL: plan.DefaultCATTL,
	}
}

// selfSignedCA returns an authority of the home domain.
func selfSignedCA(t testing.TB, now time.Time, ttl time.Duration) (crypto.Signer, *x509.Certificate) {
	t.Helper()
	key, err := keys.Generate()
	require.NoError(t, err)
	template, err := svid.CATemplate(home, key.Public(), "authority", now, now.Add(ttl), 0)
	require.NoError(t, err)
	ca, err := svid.SignCertificate(template, template, key.Public(), key, svid.LintCA(home))
	require.NoError(t, err)
	return key, ca
}

// leafTemplate returns the template from which crypto/x509 makes an X509-SVID.
func leafTemplate(id spiffeid.ID, now time.Time, ttl time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1 << 60), NotBefore: now, NotAfter: now.Add(ttl),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, SubjectKeyId: make([]byte, 20),
		URIs: []*url.URL{id.URL()},
	}
}
