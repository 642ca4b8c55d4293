package svid

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
)

var home = spiffeid.RequireTrustDomainFromString("eu.example.org")

func workload(n int) string { return fmt.Sprintf("spiffe://%s/web/%d", home.Name(), n) }

func csr(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	return der
}
