package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// webCertificate writes a self-signed certificate for localhost and its key, and returns the certificate.
func webCertificate(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "web.pem"), certificate, 0o600))
	require.NoError(
		t,
		os.WriteFile(
			filepath.Join(dir, "web.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
	)
	return string(certificate)
}

// TestVaultAcceptsJWTSVIDs: Vault's own JWT auth has the issuer's URL and the CA of its web certificate, and nothing
// else; a workload logs in with its JWT-SVID. A token for another audience, and one that has expired, are refused.
func TestVaultAcceptsJWTSVIDs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := webCertificate(t, dir)
	c := newCluster(t, "eu", 1, fmt.Sprintf(`
federation {
  min_refresh      = "1s"
  peer_min_refresh = "1s"
}
bundle_endpoint {
  listen       = "BUNDLES"
  refresh_hint = "1s"
  profile "https_web" {
    cert_file = "%[1]s/web.pem"
    key_file  = "%[1]s/web.key"
  }
}
`, dir))
	p := c.members[0]
	_, port, err := net.SplitHostPort(p.bundles)
	require.NoError(t, err)
	issuer := "https://localhost:" + port + "/eu"
	command(
		t, "domain", "update", "eu.example.org", "--oidc-issuer", issuer,
		"--socket="+filepath.Join(p.dir, "data", "admin.sock"),
	)

	v := vaulttest.Shared(t)
	auth := v.EnableAuth(t, "jwt")
	eventually(t, "Vault finds the keys", func() error {
		_, err := v.Client(t).Logical().WriteWithContext(t.Context(), "auth/"+auth+"/config", map[string]any{
			"oidc_discovery_url": issuer, "oidc_discovery_ca_pem": ca, "bound_issuer": issuer,
		})
		return err
	})
	v.Write(t, "auth/"+auth+"/role/web", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_subject":  "spiffe://eu.example.org/web",
		"token_policies": "default", "expiration_leeway": -1, "not_before_leeway": -1, "clock_skew_leeway": -1,
	})
	login := func(id, audience string, ttl time.Duration) (policies []string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		defer cancel()
		issued, err := p.socket().SVIDs().IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{
			SpiffeId: id, Audience: []string{audience}, Ttl: durationpb.New(ttl),
		})
		require.NoError(t, err)
		if ttl <= time.Second {
			<-timerUntil(t, time.Now().Add(ttl+time.Second))
		}
		client := v.Client(t)
		client.ClearToken()
		secret, err := client.Logical().
			WriteWithContext(ctx, "auth/"+auth+"/login", map[string]any{"role": "web", "jwt": issued.GetToken()})
		if err != nil {
			return nil, err
		}
		return secret.Auth.Policies, nil
	}
	policies, err := login("spiffe://eu.example.org/web", "vault", time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{"default"}, policies)
	_, err = login("spiffe://eu.example.org/web", "somebody-else", time.Minute)
	require.ErrorContains(t, err, "aud")
	_, err = login("spiffe://eu.example.org/other", "vault", time.Minute)
	require.ErrorContains(t, err, "sub")
	_, err = login("spiffe://eu.example.org/web", "vault", time.Second)
	require.ErrorContains(t, err, "expired")
}
