package vaultca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

var domain = spiffeid.RequireTrustDomainFromString("eu.example.org")

func TestMain(m *testing.M) { os.Exit(vaulttest.Main(m)) }

func text(s string) vault.Secret { return func() (string, error) { return s, nil } }

// policyFor writes the policy that the product prints, and nothing more.
func policyFor(t testing.TB, v *vaulttest.Vault, mount string) string {
	t.Helper()
	rules, err := Policies([]PolicyFor{{Mount: mount, TrustDomain: domain}}, nil)
	require.NoError(t, err)
	return v.Policy(t, rules)
}

// configFor is a configuration that works, with an AppRole that has the printed policy and nothing more.
func configFor(t testing.TB, v *vaulttest.Vault, mount string, role map[string]any) Config {
	t.Helper()
	auth, roleID, secretID := v.AppRole(t, policyFor(t, v, mount), role)
	return Config{
		Config: vault.Config{
			Address: v.Address, CAFile: v.CAFile,
			Auth:       vault.AppRole{Mount: auth, RoleID: text(roleID), SecretID: text(secretID)},
			Registerer: prometheus.NewRegistry(), RetryFor: 300 * time.Millisecond, Timeout: 5 * time.Second,
		},
		Mounts:       map[spiffeid.TrustDomain]Mount{domain: {Path: mount}},
		PollInterval: 100 * time.Millisecond,
	}
}

func open(t testing.TB, c Config) *Upstream {
	t.Helper()
	u, err := New(c)
	require.NoError(t, err)
	t.Cleanup(u.caller.Close)
	return u
}

func signRequest(t testing.TB) upstream.Request {
	t.Helper()
	csr, _, err := request()
	require.NoError(t, err)
	return upstream.Request{TrustDomain: domain, CSR: csr, Now: time.Now(), TTL: 24 * time.Hour}
}

// signs has a certificate signed, and holds it against the rules.
func signs(t testing.TB, u *Upstream) *upstream.Signed {
	t.Helper()
	signed, err := u.SignCA(t.Context(), signRequest(t))
	require.NoError(t, err)
	require.NoError(t, svid.LintCA(domain)(signed.Chain[0]))
	return signed
}

// heals waits until signing works again.
func heals(t testing.TB, u *Upstream) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := u.SignCA(t.Context(), signRequest(t))
		return err == nil
	}, 20*time.Second, 50*time.Millisecond)
}

func TestSignsRequestedNameOnly(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	u := open(t, configFor(t, v, mount, nil))
	r := signRequest(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(
		rand.Reader,
		&x509.CertificateRequest{DNSNames: []string{"evil.example.org"}},
		key,
	)
	require.NoError(t, err)
	r.CSR, err = x509.ParseCertificateRequest(der)
	require.NoError(t, err)

	signed, err := u.SignCA(t.Context(), r)
	require.NoError(t, err)
	require.Len(t, signed.Chain, 1)
	require.Len(t, signed.Anchors, 1)
	ca := signed.Chain[0]
	require.Equal(t, "spiffe://eu.example.org", ca.URIs[0].String())
	require.Empty(t, ca.DNSNames, "names of the request do not count")
	require.True(t, ca.MaxPathLenZero)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), ca.NotAfter, time.Minute)
	require.WithinDuration(t, time.Now().Add(-30*time.Second), ca.NotBefore, 10*time.Second)
	require.NoError(t, ca.CheckSignatureFrom(signed.Anchors[0]))
	require.Equal(t, 1.0, testutil.ToFloat64(u.metrics.up.WithLabelValues(domain.Name(), "sign")))

	require.NoError(t, u.Revoke(t.Context(), domain, ca))
	found, err := v.Client(t).Logical().ReadWithContext(t.Context(), mount+"/cert/"+serial(ca.SerialNumber))
	require.NoError(t, err)
	require.NotEqual(t, "0", found.Data["revocation_time"].(interface{ String() string }).String())
}

func TestChainLeadsThroughIntermediates(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	v.Below(t, mount, "issuing", mount, "root")
	v.SetDefault(t, mount, "issuing")
	v.Root(t, mount, "unrelated")
	signed := signs(t, open(t, configFor(t, v, mount, nil)))
	require.Len(t, signed.Chain, 2)
	require.Len(t, signed.Anchors, 1, "the unrelated root does not count")
}

// TestFirstUsableIssuerSigns: with several issuers, one whose anchor is refused is passed over; the policy
// allows all of them.
func TestFirstUsableIssuerSigns(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	fresh := v.Root(t, mount, "fresh")
	config := configFor(t, v, mount, nil)
	config.Mounts[domain] = Mount{Path: mount, Issuers: []string{"fresh", "root"}}
	rules, err := Policies(config.PoliciesFor(), nil)
	require.NoError(t, err)
	auth, roleID, secretID := v.AppRole(t, v.Policy(t, rules), nil)
	config.Auth = vault.AppRole{Mount: auth, RoleID: text(roleID), SecretID: text(secretID)}
	u := open(t, config)
	top, err := parseCertificates(fresh)
	require.NoError(t, err)

	require.True(t, signs(t, u).Anchors[0].Equal(top[0]))
	r := signRequest(t)
	r.Refused = func(c *x509.Certificate) bool { return c.Equal(top[0]) }
	signed, err := u.SignCA(t.Context(), r)
	require.NoError(t, err)
	require.False(t, signed.Anchors[0].Equal(top[0]))
	r.Refused = func(*x509.Certificate) bool { return true }
	signed, err = u.SignCA(t.Context(), r)
	require.NoError(t, err, "the caller reports why no anchor is usable")
	require.True(t, signed.Anchors[0].Equal(top[0]))
}

func TestOfflineRootIsPinned(t *testing.T) {
	v := vaulttest.Shared(t)
	offline, mount := v.PKI(t), v.EmptyPKI(t)
	root := v.Below(t, mount, "issuing", offline, "root")
	config := configFor(t, v, mount, nil)
	_, err := open(t, config).SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrNoAnchor)

	file := filepath.Join(t.TempDir(), "anchors.pem")
	require.NoError(t, os.WriteFile(file, []byte(root), 0o600))
	config.Mounts[domain] = Mount{Path: mount, AnchorsFile: file}
	config.Registerer = nil
	require.Len(t, signs(t, open(t, config)).Chain, 2)

	require.NoError(t, os.WriteFile(file, []byte(v.Root(t, v.EmptyPKI(t), "other")), 0o600))
	_, err = open(t, config).SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrNoChain)
}

func TestNewRootIsSeenByPolling(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	u := open(t, configFor(t, v, mount, nil))
	run(t, u)
	require.Eventually(
		t,
		func() bool { known, _ := u.Anchors(domain); return len(known) == 1 },
		10*time.Second,
		10*time.Millisecond,
	)
	before, changed := u.Anchors(domain)
	v.Root(t, mount, "next")
	v.SetDefault(t, mount, "next")
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("the new root was not seen")
	}
	now, _ := u.Anchors(domain)
	require.False(t, sameAnchors(before, now))
	require.True(t, signs(t, u).Anchors[0].Equal(now[0]))
}

func TestSharedRootIsRefused(t *testing.T) {
	v := vaulttest.Shared(t)
	mount, other := v.PKI(t), v.EmptyPKI(t)
	root := v.Below(t, other, "issuing", mount, "root")
	file := filepath.Join(t.TempDir(), "anchors.pem")
	require.NoError(t, os.WriteFile(file, []byte(root), 0o600))
	config := configFor(t, v, mount, nil)
	second := spiffeid.RequireTrustDomainFromString("second.example.org")
	config.Mounts[second] = Mount{Path: other, AnchorsFile: file}
	u := open(t, config)
	signs(t, u)
	r := signRequest(t)
	r.TrustDomain = second
	_, err := u.SignCA(t.Context(), r)
	require.ErrorIs(t, err, vault.ErrSharedAnchor)
}

// run runs an upstream until the test ends.
func run(t testing.TB, u *Upstream) {
	t.Helper()
	ctx, done := t.Context(), make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	t.Cleanup(func() { require.NoError(t, <-done) })
}
