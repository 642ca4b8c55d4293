package vaultca

import (
	"crypto/rand"
	"crypto/x509"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/transit"
	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// TestUpstreamAndTransitShareALogin: a member whose certificates and keys are both from Vault logs in once, with one
// policy.
func TestUpstreamAndTransitShareALogin(t *testing.T) {
	v := vaulttest.Shared(t)
	config := configFor(t, v, v.PKI(t), nil)
	keys := transit.Config{Mount: v.Transit(t), Cluster: "eu", Member: "eu-1", Dir: filepath.Join(t.TempDir(), "keys")}
	rules, err := Policies(config.PoliciesFor(), []transit.PolicyFor{keys.PolicyFor()})
	require.NoError(t, err)
	auth, roleID, secretID := v.AppRole(t, v.Policy(t, rules), nil)
	config.Auth = vault.AppRole{Mount: auth, RoleID: text(roleID), SecretID: text(secretID)}
	u := open(t, config)
	k, err := transit.Open(keys, u.Caller())
	require.NoError(t, err)
	run(t, u)
	ctx, done := t.Context(), make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() { require.NoError(t, <-done) })

	key, err := k.Create(t.Context(), "a")
	require.NoError(t, err)
	r := signRequest(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	r.CSR, err = x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	require.NoError(t, r.CSR.CheckSignature())
	got, err := u.SignCA(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, key.Public(), got.Chain[0].PublicKey)
	require.Equal(t, 1.0, testutil.ToFloat64(u.caller.Calls("login", "ok")))
}
