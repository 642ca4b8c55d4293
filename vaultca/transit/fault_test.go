package transit

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// write writes with the store's own login.
func writeTo(t testing.TB, c *vault.Caller, path string, data map[string]any) (*api.Secret, error) {
	t.Helper()
	return c.Authorized(t.Context(), "check", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		return client.Logical().WriteWithContext(ctx, path, data)
	})
}

// TestOutageLosesNoKey: no response of Vault or of a proxy makes a key count as lost. Each failure has a name, and the
// store recovers without intervention.
func TestOutageLosesNoKey(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.Transit(t)
	proxy := vaulttest.NewProxy(t, v)
	for _, c := range []struct {
		name  string
		fault vaulttest.Fault
		want  error
	}{
		{"500", vaulttest.Status(http.StatusInternalServerError), vault.ErrServer},
		{"503", vaulttest.Status(http.StatusServiceUnavailable), vault.ErrSealed},
		{"429", vaulttest.Status(http.StatusTooManyRequests), vault.ErrBusy},
		{"400", vaulttest.Status(http.StatusBadRequest), vault.ErrRejected},
		{"403", vaulttest.Status(http.StatusForbidden), vault.ErrLogin},
		{"404", vaulttest.Status(http.StatusNotFound), vault.ErrNotFound},
		{"garbage", vaulttest.Answer("<html>a captive portal</html>"), vault.ErrMalformed},
		{"empty", vaulttest.Answer(""), vault.ErrMalformed},
		{"no signature", vaulttest.Answer(`{"data":{"signature":"none"}}`), vault.ErrMalformed},
		{"no base64", vaulttest.Answer(`{"data":{"signature":"vault:v1:%"}}`), vault.ErrMalformed},
		{"another version", vaulttest.Answer(`{"data":{"signature":"vault:v2:MAA="}}`), vault.ErrKeyChanged},
		{"another's signature", vaulttest.Answer(`{"data":{"signature":"vault:v1:MAA="}}`), vault.ErrKeyChanged},
		{"too large", vaulttest.Flood, vault.ErrTooLarge},
		{"hang", vaulttest.Hang, vault.ErrUnreachable},
		{"cut", vaulttest.Cut, vault.ErrUnreachable},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := transitFor(t, v, mount, "eu-1")
			config.Vault.Address, config.Vault.CAFile = proxy.Address, proxy.CAFile
			k := openTransit(t, config)
			key := makes(t, k, "a")
			if c.name == "hang" {
				k.caller.Config.Timeout, k.config.SignTimeout = 500*time.Millisecond, 500*time.Millisecond
			}
			proxy.Break(c.fault)
			refuses(t, key, c.want)
			runTransit(t, k)
			for range 3 { // the watch reads it too
				select {
				case <-proxy.Broken():
				case <-time.After(30 * time.Second):
					t.Fatal("no request arrived")
				}
			}
			proxy.Heal()
			eventually(t, "it heals", func() bool {
				_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
				return err == nil && k.suspects() == 0 && testutil.ToFloat64(k.metrics.up) == 1
			})
			_, err := k.Signer("a")
			require.NoError(t, err)
		})
	}
}

func TestFailuresPauseSigning(t *testing.T) {
	v := vaulttest.Shared(t)
	proxy := vaulttest.NewProxy(t, v)
	config := transitFor(t, v, v.Transit(t), "eu-1")
	config.Vault.Address, config.Vault.CAFile = proxy.Address, proxy.CAFile
	k := openTransit(t, config)
	key := makes(t, k, "a")
	k.health.rest = time.Hour
	proxy.Break(vaulttest.Status(http.StatusServiceUnavailable))
	refuses(t, key, vault.ErrSealed)
	proxy.Heal()
	_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	require.ErrorIs(t, err, vault.ErrSealed)
	require.ErrorContains(t, err, "sign with key a in Vault's Transit: a moment ago: ")
	require.Len(t, proxy.Broken(), 1, "Vault received one request")
	k.outcome(t.Context(), taskRead, nil) // a read succeeds
	signsDigest(t, key)
}

// TestLostKeys: a key that was deleted or replaced in Vault is detected, by a signature or by a check, and reported to
// the authorities.
func TestLostKeys(t *testing.T) {
	v := vaulttest.Shared(t)
	for _, c := range []struct {
		name   string
		behind func(t *testing.T, mount, key string)
		want   error
		reason string
		left   int
	}{
		{"deleted", func(t *testing.T, mount, key string) { v.DeleteTransitKey(t, mount, key) }, vault.ErrRejected,
			"key_gone", 0},
		{"replaced", func(t *testing.T, mount, key string) {
			v.DeleteTransitKey(t, mount, key)
			v.Write(t, mount+"/keys/"+key, map[string]any{"type": "ecdsa-p256"})
		}, vault.ErrKeyChanged, "key_changed", 1},
		{"replaced by another kind", func(t *testing.T, mount, key string) {
			v.DeleteTransitKey(t, mount, key)
			v.Write(t, mount+"/keys/"+key, map[string]any{"type": "aes256-gcm96"})
		}, vault.ErrRejected, "key_changed", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			mount := v.Transit(t)
			config := transitFor(t, v, mount, "eu-1")
			k := openTransit(t, config)
			key := makes(t, k, "a")
			makes(t, k, "b")
			c.behind(t, mount, key.(*signingKey).entry.Key)
			refuses(t, key, c.want)
			_, err := k.Signer("a")
			require.NoError(t, err, "once is not enough")
			runTransit(t, k)
			select {
			case <-k.Changed():
			case <-time.After(30 * time.Second):
				t.Fatal("the loss was not signaled")
			}
			_, err = k.Signer("a")
			require.ErrorIs(t, err, fs.ErrNotExist)
			refuses(t, key, vault.ErrKeyGone)
			_, err = k.Signer("b")
			require.NoError(t, err)
			require.Equal(t, 1.0, testutil.ToFloat64(k.metrics.lost.WithLabelValues(c.reason)))
			eventually(t, "what is not ours is left alone, and forgotten", func() bool {
				files, err := os.ReadDir(config.Dir)
				return err == nil && len(files) == 1
			})
			require.Len(t, v.TransitKeys(t, mount), c.left+1)
		})
	}
}

func TestRevokedTokenCostsNoSignature(t *testing.T) {
	v := vaulttest.Shared(t)
	k := openTransit(t, transitFor(t, v, v.Transit(t), "eu-1"))
	key := makes(t, k, "a")
	was := k.caller.Token()
	require.NoError(t, v.Client(t).Auth().Token().RevokeOrphan(was))
	signsDigest(t, key)
	require.NotEqual(t, was, k.caller.Token())
}

func TestRotatedKeySignsOnInItsVersion(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.Transit(t)
	k := openTransit(t, transitFor(t, v, mount, "eu-1"))
	key := makes(t, k, "a")
	v.Write(t, mount+"/keys/"+key.(*signingKey).entry.Key+"/rotate", nil)
	signsDigest(t, key)
}

func TestExposedKeyIsAnAlarm(t *testing.T) {
	v, log := vaulttest.Shared(t), &logLines{}
	mount := v.Transit(t)
	config := transitFor(t, v, mount, "eu-1")
	config.Vault.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Error, DisableTime: true})
	k := openTransit(t, config)
	key := makes(t, k, "a")
	v.Write(t, mount+"/keys/"+key.(*signingKey).entry.Key+"/config", map[string]any{"exportable": true})
	halt := runTransit(t, k)
	eventually(t, "it is found out", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.exposed) == 1
	})
	halt()
	require.Len(t, log.lines, 1)
	require.Contains(
		t,
		log.lines[0],
		"a signing key can have left Vault: it can be exported; find out who did that, and taint its authority",
	)
	signsDigestAfter(t, config, key)
}

// signsDigestAfter signs with a store that was opened again.
func signsDigestAfter(t testing.TB, config Config, key crypto.Signer) {
	t.Helper()
	again, err := openTransit(t, config).Signer(key.(*signingKey).entry.Name)
	require.NoError(t, err)
	signsDigest(t, again)
}

func TestKeysOfAnotherKindAreRefused(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.Transit(t)
	k := openTransit(t, transitFor(t, v, mount, "eu-1"))
	for name, settings := range map[string]map[string]any{
		"exportable": {"type": "ecdsa-p256", "exportable": true}, "backup": {"type": "ecdsa-p256",
			"allow_plaintext_backup": true},
		"p384": {"type": "ecdsa-p384"}, "ed25519": {"type": "ed25519"}, "aes": {},
	} {
		e := entry{Name: name, Mount: mount, Key: KeyPrefix("", "eu", "eu-1") + name}
		v.Write(t, mount+"/keys/"+e.Key, settings) // the name is in use already
		_, err := makeKey(t.Context(), k.caller, e)
		require.ErrorIs(t, err, vault.ErrKeyKind, name)
	}
	e := entry{Name: "rotated", Mount: mount, Key: KeyPrefix("", "eu", "eu-1") + "rotated"}
	v.Write(t, mount+"/keys/"+e.Key, map[string]any{"type": "ecdsa-p256"})
	v.Write(t, mount+"/keys/"+e.Key+"/rotate", nil)
	_, err := makeKey(t.Context(), k.caller, e)
	require.ErrorIs(t, err, vault.ErrKeyKind)
}

func TestUnreadableEntriesDoNotPreventStart(t *testing.T) {
	v, log := vaulttest.Shared(t), &logLines{}
	config := transitFor(t, v, v.Transit(t), "eu-1")
	config.Vault.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Error, DisableTime: true})
	k := openTransit(t, config)
	makes(t, k, "a")
	broken := makes(t, k, "b").(*signingKey).entry.file()
	require.NoError(t, os.WriteFile(filepath.Join(config.Dir, broken), []byte(`{"name":"b"}`), 0o600))
	again := openTransit(t, config)
	_, err := again.Signer("b")
	require.ErrorIs(t, err, fs.ErrNotExist)
	key, err := again.Signer("a")
	require.NoError(t, err)
	signsDigest(t, key)
	require.Len(t, log.lines, 1)
	require.Contains(t, log.lines[0], broken)
}

// FuzzParseEntry: no file in the folder crashes the member, and an entry that was read is written back unchanged.
func FuzzParseEntry(f *testing.F) {
	f.Add(
		[]byte(
			`{"name":"a","mount":"transit","key":"entente-CLUSTER-eu-MEMBER-eu-1-KEY-a-b","number":1,"state":"doomed"}`,
		),
	)
	f.Add([]byte(`{"name":"a","state":"ready"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := parseEntry(raw)
		if err != nil {
			return
		}
		written, err := e.marshal()
		require.NoError(t, err)
		again, err := parseEntry(written)
		require.NoError(t, err)
		rewritten, err := again.marshal()
		require.NoError(t, err)
		require.True(t, bytes.Equal(written, rewritten))
	})
}
