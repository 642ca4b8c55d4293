package svid

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWeakKeysAreRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)
	require.EqualError(t, checkKey(small.Public()), "the RSA key has 1024 bits; use 2048 to 8192")
	require.EqualError(t, checkKey(p224.Public()), "the key is on curve P-224; use P-256 or P-384")
	require.EqualError(t, checkKey(p521.Public()), "the key is on curve P-521; use P-256 or P-384")
	require.EqualError(t, checkKey(nil),
		"the key is of no supported type; use ECDSA P-256 or P-384, RSA with 2048 bits or more, or Ed25519")
	_, err = ParseCSR(csr(t, p521))
	require.ErrorContains(t, err, "use P-256 or P-384")
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{SignatureAlgorithm: x509.SHA384WithRSAPSS}, weak)
	require.NoError(t, err)
	_, err = ParseCSR(der)
	require.NoError(t, err)
}
