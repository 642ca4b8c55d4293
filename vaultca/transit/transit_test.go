package transit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// transitFor is a configuration that works, with an AppRole that has the printed policy for one member and nothing
// more.
func transitFor(t testing.TB, v *vaulttest.Vault, mount, member string) Config {
	t.Helper()
	rules := policyText(PolicyFor{Mount: mount, Cluster: "eu", Member: member})
	auth, roleID, secretID := v.AppRole(t, v.Policy(t, rules), nil)
	return Config{
		Vault: vault.Config{
			Address: v.Address, CAFile: v.CAFile, Auth: vault.AppRole{Mount: auth, RoleID: secretText(roleID),
				SecretID: secretText(secretID)},
			Registerer: prometheus.NewRegistry(), RetryFor: 300 * time.Millisecond, Timeout: 5 * time.Second,
		},
		Mount: mount, Cluster: "eu", Member: member, Dir: filepath.Join(t.TempDir(), "transit"),
		CheckInterval: 50 * time.Millisecond, ConfirmAfter: 100 * time.Millisecond, SignTimeout: 5 * time.Second,
	}
}

// openTransit opens a store that does not run.
func openTransit(t testing.TB, c Config) *Store {
	t.Helper()
	c.Vault.Registerer = prometheus.NewRegistry()
	k, err := Open(c, nil)
	require.NoError(t, err)
	k.health.rest = 0
	t.Cleanup(func() {
		k.stop()
		k.caller.Close()
	})
	return k
}

// runTransit runs a store until the test ends, or until halt is called.
func runTransit(t testing.TB, k *Store) (halt func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	ended := false
	halt = func() {
		if cancel(); !ended {
			ended = true
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(halt)
	return halt
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, 30*time.Second, 10*time.Millisecond, what)
}

var digest = sha256.Sum256([]byte("a certificate"))

func signsDigest(t testing.TB, key crypto.Signer) {
	t.Helper()
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	require.True(t, ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], signature))
}

func refuses(t testing.TB, key crypto.Signer, want error) {
	t.Helper()
	_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	require.ErrorIs(t, err, want)
}

func makes(t testing.TB, k *Store, name string) crypto.Signer {
	t.Helper()
	key, err := k.Create(t.Context(), name)
	require.NoError(t, err)
	return key
}

// selfSignedBy is a certificate of the key below itself.
func selfSignedBy(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return c
}

// TestTransitMeetsStoreContract holds the store to what every store of keys does.
func TestTransitMeetsStoreContract(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.Transit(t)
	v.Write(t, mount+"/keys/somebody-elses", map[string]any{"type": "ecdsa-p256"})
	v.Write(t, mount+"/keys/"+KeyPrefix("", "eu", "eu-2")+"a", map[string]any{"type": "ecdsa-p256"})
	k := openTransit(t, transitFor(t, v, mount, "eu-1"))
	runTransit(t, k)
	made := makes(t, k, "a")
	signsDigest(t, made)
	got, err := k.Signer("a")
	require.NoError(t, err)
	require.Equal(t, made.Public(), got.Public())
	none, err := k.Certificate("a")
	require.NoError(t, err)
	require.Nil(t, none)
	certificate := selfSignedBy(t, made)
	require.NoError(t, k.Certify(t.Context(), "a", certificate))
	kept, err := k.Certificate("a")
	require.NoError(t, err)
	require.True(t, certificate.Equal(kept))

	again := makes(t, k, "a")
	require.NotEqual(t, made.Public(), again.Public())
	none, err = k.Certificate("a")
	require.NoError(t, err)
	require.Nil(t, none, "it belonged to the key before")
	require.ErrorContains(t, k.Certify(t.Context(), "a", certificate), "it belongs to another key")
	refuses(t, made, vault.ErrKeyGone)
	makes(t, k, "b")
	names, err := k.Names(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, names, "keys of others are none of them")

	require.NoError(t, k.Delete(t.Context(), "a"))
	require.NoError(t, k.Delete(t.Context(), "a"))
	_, err = k.Signer("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = k.Certificate("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, k.Certify(t.Context(), "a", certificate), fs.ErrNotExist)
	eventually(t, "what was deleted and replaced is gone from Vault, and nothing else", func() bool {
		left := v.TransitKeys(t, mount)
		return len(left) == 3 && slices.Contains(left, "somebody-elses") &&
			slices.Contains(left, KeyPrefix("", "eu", "eu-2")+"a")
	})
	for _, bad := range []string{"", "A", "a/b", "a.b", strings.Repeat("a", 64)} {
		_, err := k.Create(t.Context(), bad)
		require.ErrorContains(t, err, "cannot stand in the name of a key in Transit")
	}
	_, err = again.Sign(rand.Reader, digest[:16], crypto.SHA256)
	require.ErrorContains(t, err, "signs SHA-256 digests alone")
}

func TestTransitMakesKeysThatStayInVault(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.Transit(t)
	config := transitFor(t, v, mount, "eu-1")
	k := openTransit(t, config)
	makes(t, k, "a")
	name := v.TransitKeys(t, mount)[0]
	require.True(t, strings.HasPrefix(name, "entente-CLUSTER-eu-MEMBER-eu-1-KEY-a-"), name)
	found, err := v.Client(t).Logical().Read(mount + "/keys/" + name)
	require.NoError(t, err)
	for setting, want := range map[string]any{"type": "ecdsa-p256", "exportable": false,
		"allow_plaintext_backup": false, "deletion_allowed": false} {
		require.Equal(t, want, found.Data[setting], setting)
	}
	files, err := os.ReadDir(config.Dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
	raw, err := os.ReadFile(filepath.Join(config.Dir, files[0].Name()))
	require.NoError(t, err)
	require.NotContains(t, string(raw), "PRIVATE")
}

// TestTransitAfterRestart: with Vault sealed a member knows its keys, and signs again as soon as it is open.
func TestTransitAfterRestart(t *testing.T) {
	v := vaulttest.Start(t)
	config := transitFor(t, v, v.Transit(t), "eu-1")
	k := openTransit(t, config)
	halt := runTransit(t, k)
	made := makes(t, k, "a")
	certificate := selfSignedBy(t, made)
	require.NoError(t, k.Certify(t.Context(), "a", certificate))
	v.Seal(t)
	refuses(t, made, vault.ErrSealed)
	halt()
	refuses(t, made, context.Canceled)

	again := openTransit(t, config)
	runTransit(t, again)
	key, err := again.Signer("a")
	require.NoError(t, err)
	require.Equal(t, made.Public(), key.Public())
	kept, err := again.Certificate("a")
	require.NoError(t, err)
	require.True(t, kept.Equal(certificate))
	_, err = key.Sign(rand.Reader, digest[:], crypto.SHA256)
	require.True(t, vault.Transient(err), "%v", err)
	_, err = again.Create(t.Context(), "b")
	require.True(t, vault.Transient(err), "%v", err)
	eventually(t, "the alarm is up", func() bool { return testutil.ToFloat64(again.metrics.up) == 0 })
	names, err := again.Names(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)
	v.Unseal(t)
	eventually(t, "signing works again", func() bool {
		_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		return err == nil
	})
	require.Equal(t, 1.0, testutil.ToFloat64(again.metrics.up))
	require.Zero(t, testutil.ToFloat64(again.metrics.lost.WithLabelValues("key_gone")))
}

// TestTransitKeepsEveryKey: a key whose making was cut short is deleted in Vault, by the next process if need be.
func TestTransitKeepsEveryKey(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.Transit(t)
	config := transitFor(t, v, mount, "eu-1")
	k := openTransit(t, config)
	left := entry{
		Name:   "a",
		Mount:  mount,
		Key:    KeyPrefix("", "eu", "eu-1") + "a-aaaaaaaaaaaaaaaa",
		Number: 7,
		State:  stateMaking,
	}
	require.NoError(t, k.index.put(left))
	_, err := makeKey(t.Context(), k.caller, left)
	require.NoError(t, err)
	makes(t, k, "b")
	require.NoError(t, k.Delete(t.Context(), "b"))
	require.NoError(t, os.WriteFile(filepath.Join(config.Dir, keys.UnfinishedPrefix+"1"), nil, 0o600))
	require.Len(t, v.TransitKeys(t, mount), 2)

	again := openTransit(t, config)
	_, err = again.Signer("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	runTransit(t, again)
	eventually(t, "both are deleted", func() bool { return len(v.TransitKeys(t, mount)) == 0 })
	eventually(t, "and forgotten", func() bool {
		files, err := os.ReadDir(config.Dir)
		return err == nil && len(files) == 0
	})
}

func TestTwoMembersOnOneMount(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.Transit(t)
	one, two := openTransit(t, transitFor(t, v, mount, "eu-1")), openTransit(t, transitFor(t, v, mount, "eu-1-key"))
	runTransit(t, one)
	runTransit(t, two)
	first, second := makes(t, one, "a"), makes(t, two, "a")
	require.NotEqual(t, first.Public(), second.Public())
	require.NoError(t, one.Delete(t.Context(), "a"))
	eventually(t, "the one is deleted", func() bool { return len(v.TransitKeys(t, mount)) == 1 })
	signsDigest(t, second)
	// Vault's policy denies access to the keys of the other member, even with their names.
	others := two.keys["a"].entry
	_, err := readKey(t.Context(), one.caller, others)
	require.ErrorIs(t, err, vault.ErrDenied)
	_, err = signDigest(t.Context(), one.caller, 5*time.Second, others, digest[:])
	require.ErrorIs(t, err, vault.ErrDenied)
	require.ErrorIs(t, deleteKey(t.Context(), one.caller, others), vault.ErrDenied)
}

func TestNamesOfKeysAreUnambiguous(t *testing.T) {
	prefixes := []string{}
	for _, cluster := range []string{"eu", "eu-eu", "eu-member"} {
		for _, member := range []string{"1", "eu-1", "eu-1-key", "eu-1-key-1"} {
			prefixes = append(prefixes, KeyPrefix("", cluster, member))
		}
	}
	for i, a := range prefixes {
		for j, b := range prefixes {
			require.Equal(t, i == j, strings.HasPrefix(a, b), "%s and %s", a, b)
		}
	}
	config := Config{
		Vault:   vault.Config{Address: "https://v:8200", Auth: vault.Token{Token: secretText("t")}},
		Mount:   "transit",
		Cluster: "EU",
		Member:  "eu-1",
	}
	require.ErrorContains(t, config.Validate(), `cluster "EU" cannot stand in the name of a key`)
	config.Cluster, config.Prefix = strings.Repeat("a", 63), strings.Repeat("b", 63)
	require.ErrorContains(t, config.Validate(), "choose a shorter key_prefix")
}

// TestKeysThatCannotSignAreNotMade: without the right to sign there is no key, and none is left in Vault.
func TestKeysThatCannotSignAreNotMade(t *testing.T) {
	v := vaulttest.Shared(t)
	config := transitFor(t, v, v.Transit(t), "eu-1")
	rules := vault.PrintRights(Rights(config.PolicyFor())[:1]) + vault.PrintRights(vault.LoginRights())
	config.Vault.Auth = vault.Token{Token: secretText(v.Token(t, v.Policy(t, rules), "1h"))}
	k := openTransit(t, config)
	_, err := k.Create(t.Context(), "a")
	require.ErrorIs(t, err, vault.ErrDenied)
	names, err := k.Names(t.Context())
	require.NoError(t, err)
	require.Empty(t, names)
	require.Len(t, v.TransitKeys(t, config.Mount), 1)
	runTransit(t, k)
	eventually(t, "it is deleted", func() bool { return len(v.TransitKeys(t, config.Mount)) == 0 })
}
