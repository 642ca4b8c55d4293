package authority

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestKeyFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	keys, err := OpenKeyFolder(dir)
	require.NoError(t, err)
	made, err := keys.Create(t.Context(), "a")
	require.NoError(t, err)
	again, err := OpenKeyFolder(dir)
	require.NoError(t, err)
	read, err := again.Signer("a")
	require.NoError(t, err)
	require.Equal(t, made, read)
	requireModes(t, dir)

	_, err = keys.Signer("b")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.pem"), []byte("no key"), 0o600))
	_, err = keys.Signer("b")
	require.ErrorContains(t, err, "b.pem: it holds no private key")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "c.pem"), nil, 0o644))
	_, err = keys.Signer("c")
	require.ErrorContains(t, err, "so that others can read it; run chmod 0600 ")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d.pem"), make([]byte, maxKeyFile+1), 0o600))
	_, err = keys.Signer("d")
	require.ErrorContains(t, err, "which is no key")
	require.NoError(t, keys.Delete(t.Context(), "a"))
	require.NoError(t, keys.Delete(t.Context(), "a"))
	_, err = keys.Signer("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestSelfSignedRoots: a root signs for half of its life, a rotation of anchors makes a new one, and what nothing is
// below any more is deleted.
func TestSelfSignedRoots(t *testing.T) {
	keys, err := OpenKeyFolder(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	upstream := NewSelfSigned(keys, 100*time.Hour)
	now := time.Now().Truncate(time.Second)
	anchor := func(at time.Time, newAnchor bool) *x509.Certificate {
		key, err := newKey()
		require.NoError(t, err)
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		require.NoError(t, err)
		csr, err := x509.ParseCertificateRequest(der)
		require.NoError(t, err)
		signed, err := upstream.SignCA(t.Context(), CARequest{TrustDomain: home, CSR: csr, Now: at, TTL: 24 * time.Hour, NewAnchor: newAnchor})
		require.NoError(t, err)
		require.NoError(t, checkSigned(home, key.Public(), signed, at, time.Hour))
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
	require.True(t, fourth.Equal(anchor(now.Add(20*time.Hour), false)), "the newest is the newest, whatever the clock says")

	require.NoError(t, upstream.Prune(func(c *x509.Certificate) bool { return c.Equal(fourth) }))
	names, err := keys.Names(t.Context())
	require.NoError(t, err)
	require.Len(t, names, 1)
	_, err = NewSelfSigned(keys, 50*time.Hour).SignCA(t.Context(), CARequest{TrustDomain: home, TTL: 24 * time.Hour})
	require.EqualError(t, err, "the root lives for 50h0m0s, and a signing certificate for 24h0m0s; raise root_ttl to four times ca_ttl")
}

// TestOrphanedKeys: a key that no authority was ever seen for is kept for a while, since its transaction may still come
// to light; then it is deleted.
func TestOrphanedKeys(t *testing.T) {
	f, c := newOne(t, nil)
	f.halt(c)
	_, err := c.keys.Create(t.Context(), "orphan")
	require.NoError(t, err)
	c.sweeper = sweeper{}
	next, err := c.sweep(context.Background())
	require.NoError(t, err)
	require.Equal(t, orphanAge, next.Sub(f.now()))
	_, err = c.keys.Signer("orphan")
	require.NoError(t, err)
	f.mu.Lock()
	f.ahead = orphanAge
	f.mu.Unlock()
	_, err = c.sweep(context.Background())
	require.NoError(t, err)
	_, err = c.keys.Signer("orphan")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotNil(t, c.signing.Load().domains[home].signers[X509])
}

func TestAlarms(t *testing.T) {
	start := time.Now()
	active := Authority{State: Active, NotBefore: start, NotAfter: start.Add(24 * time.Hour)}
	for name, test := range map[string]struct {
		at     time.Duration
		newest map[State]Authority
		silent bool
		want   map[string]bool
	}{
		"all is well": {17 * time.Hour, map[State]Authority{Active: active}, false, map[string]bool{"late": false, "none": false, "silent": false}},
		"late":        {18 * time.Hour, map[State]Authority{Active: active}, false, map[string]bool{"late": true, "none": false, "silent": false}},
		"on its way":  {18 * time.Hour, map[State]Authority{Active: active, Prepared: {}}, false, map[string]bool{"late": false, "none": false, "silent": false}},
		"none":        {0, map[State]Authority{Retiring: active}, true, map[string]bool{"late": false, "none": true, "silent": true}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, alarms(start.Add(test.at), test.newest, test.silent))
		})
	}
}

func TestMetrics(t *testing.T) {
	_, c := newOne(t, nil)
	problems, err := testutil.GatherAndLint(c.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	count, err := testutil.GatherAndCount(c.registry, "entente_authority_not_after_timestamp_seconds", "entente_authority_bundle_sequence", "entente_authority_alarm")
	require.NoError(t, err)
	require.Equal(t, 2+1+6, count)
	require.Zero(t, c.metricSum("entente_authority_alarm"))
}
