package upstream

import (
	"crypto/rand"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
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
		require.NoError(t, Check(home, key.Public(), signed, at, time.Hour))
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
	require.NoError(t, Check(home, key.Public(), signed, now, 10*time.Minute))
	ca := signed.Chain[0]
	require.ErrorContains(t, Check(home, ca.PublicKey, signed, now, time.Hour),
		"two SVID lifetimes (2h0m0s) are needed")
	other, err := keys.Generate()
	require.NoError(t, err)
	require.ErrorContains(t, Check(home, other.Public(), signed, now, time.Minute), "a certificate for another key")
	require.ErrorContains(t,
		Check(home, key.Public(), &Signed{Chain: signed.Chain, Anchors: signed.Chain}, now, time.Minute),
		"which is not the self-signed certificate of a CA")
	us := spiffeid.RequireTrustDomainFromString("us.example.org")
	stranger, err := NewSelfSigned(store, 365*24*time.Hour).newRoot(t.Context(), us, 1, now)
	require.NoError(t, err)
	require.ErrorContains(
		t,
		Check(home, key.Public(), &Signed{Chain: signed.Chain, Anchors: []*x509.Certificate{stranger.Certificate}},
			now, time.Minute),
		"does not chain to its anchor",
	)
	require.ErrorContains(t, Check(home, key.Public(), &Signed{}, now, time.Minute),
		"returned 0 certificates and 0 anchors")
}
