package xds

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/trust"
)

func root(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return c
}

// TestSecrets: each domain's roots verify that domain and no other, and no secret holds a certificate or a key of
// anybody.
func TestSecrets(t *testing.T) {
	eu := trust.Roots{TrustDomain: home, Authorities: []*x509.Certificate{root(t), root(t)}}
	us := trust.Roots{
		TrustDomain: spiffeid.RequireTrustDomainFromString("us.example.org"),
		Authorities: []*x509.Certificate{root(t)},
	}
	all, err := allRoots(AllRoots, []trust.Roots{eu, us})
	require.NoError(t, err)
	var validator tls.SPIFFECertValidatorConfig
	require.NoError(t, all.GetValidationContext().GetCustomValidatorConfig().GetTypedConfig().UnmarshalTo(&validator))
	require.Nil(t, all.GetTlsCertificate())
	require.Nil(t, all.GetValidationContext().GetTrustedCa(), "merged roots would let one domain speak for another")
	require.Len(t, validator.GetTrustDomains(), 2)
	for i, r := range []trust.Roots{eu, us} {
		domain := validator.GetTrustDomains()[i]
		require.Equal(t, r.TrustDomain.Name(), domain.GetName())
		rest := domain.GetTrustBundle().GetInlineBytes()
		for _, want := range r.Authorities {
			var block *pem.Block
			block, rest = pem.Decode(rest)
			require.NotNil(t, block)
			require.Equal(t, want.Raw, block.Bytes)
		}
		require.Empty(t, rest)
	}
	one := rootsOf(us.TrustDomain.IDString(), us)
	require.Equal(t, "spiffe://us.example.org", one.GetName())
	require.Equal(
		t,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: us.Authorities[0].Raw}),
		one.GetValidationContext().GetTrustedCa().GetInlineBytes(),
	)
}
