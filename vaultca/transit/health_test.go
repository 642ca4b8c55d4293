package transit

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/clocktest"
	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// TestRetriesWhileSigningFails: while signing fails, one call retries after a rest, and the others fail at once.
func TestRetriesWhileSigningFails(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		h := health{rest: time.Second, failing: map[string]error{}}
		leave, err := h.enter()
		require.NoError(t, err)
		_, err = h.enter()
		require.NoError(t, err, "while it works any number may")
		leave()
		began, _ := h.record(taskSign, vault.ErrSealed)
		require.True(t, began)
		_, err = h.enter()
		require.ErrorIs(t, err, vault.ErrSealed)
		<-time.After(time.Second)
		leave, err = h.enter()
		require.NoError(t, err)
		_, err = h.enter()
		require.ErrorIs(t, err, vault.ErrSealed, "one tries")
		began, ended := h.record(taskSign, vault.ErrSealed)
		require.False(t, began || ended, "it is logged already")
		leave()
		_, err = h.enter()
		require.ErrorIs(t, err, vault.ErrSealed)

		// A failure that needs an operator is retried less often. The success of another task does not clear it.
		h.record(taskSign, vault.ErrDenied)
		_, ended = h.record(taskRead, nil)
		require.False(t, ended)
		<-time.After(9 * time.Second)
		_, err = h.enter()
		require.ErrorIs(t, err, vault.ErrDenied)
		<-time.After(time.Second)
		_, err = h.enter()
		require.NoError(t, err)
		_, ended = h.record(taskSign, nil)
		require.True(t, ended)

		// An outage is over when Vault answers any call.
		h.record(taskSign, fmt.Errorf("x: %w", vault.ErrUnreachable))
		began, _ = h.record(taskMake, vault.ErrUnreachable)
		require.False(t, began, "one line for one outage")
		_, ended = h.record(taskRead, nil)
		require.True(t, ended)
		require.True(t, h.well())
	})
}

// TestMissingRightDoesNotRepeatLogins: where the right to sign is missing, signatures are not each a login.
func TestMissingRightDoesNotRepeatLogins(t *testing.T) {
	v := vaulttest.Shared(t)
	config := transitFor(t, v, v.Transit(t), "eu-1")
	key := makes(t, openTransit(t, config), "a")
	rules := vault.PrintRights(Rights(config.PolicyFor())[:1]) + vault.PrintRights(vault.LoginRights())
	config.Vault.Auth = vault.Token{Token: secretText(v.Token(t, v.Policy(t, rules), "1h"))}
	k := openTransit(t, config)
	k.health.rest = time.Hour
	again, err := k.Signer("a")
	require.NoError(t, err)
	require.Equal(t, key.Public(), again.Public())
	for range 10 {
		refuses(t, again, vault.ErrDenied)
	}
	require.LessOrEqual(t, testutil.ToFloat64(k.caller.Calls("login", "ok")), 2.0)
	halt := runTransit(t, k)
	eventually(t, "the watch reads the key", func() bool {
		return testutil.ToFloat64(k.caller.Calls("transit_read", "ok")) > 0
	})
	halt()
	require.Zero(t, testutil.ToFloat64(k.metrics.up), "a successful read does not clear the failure of signing")
}

// TestRefusedSignaturesAreLoggedOnce: a key that exists but no longer signs is not lost, and is logged once, not at
// each request.
func TestRefusedSignaturesAreLoggedOnce(t *testing.T) {
	v, log := vaulttest.Shared(t), &logLines{}
	mount := v.Transit(t)
	config := transitFor(t, v, mount, "eu-1")
	config.CheckInterval = time.Hour
	config.Vault.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Warn, DisableTime: true})
	k := openTransit(t, config)
	key := makes(t, k, "a")
	path := mount + "/keys/" + key.(*signingKey).entry.Key
	v.Write(t, path+"/rotate", nil)
	v.Write(t, path+"/config", map[string]any{"min_encryption_version": 2})
	halt := runTransit(t, k)
	refuses(t, key, vault.ErrServer)
	eventually(t, "it is read", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.blamed) == 1
	})
	for range 5 {
		refuses(t, key, vault.ErrServer)
	}
	halt()
	require.Len(t, log.lines, 1)
	require.Contains(t, log.lines[0], "a signature by Vault failed, though the key is in its place")
	_, err := k.Signer("a")
	require.NoError(t, err)
}

// TestRefusedKeyDoesNotBlockOthers: a key that Vault does not let us delete keeps no lost one from being found out.
func TestRefusedKeyDoesNotBlockOthers(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.Transit(t)
	k := openTransit(t, transitFor(t, v, mount, "eu-1"))
	foreign := entry{Name: "a", Mount: mount, Key: KeyPrefix("", "eu", "eu-2") + "a-a", State: stateDoomed}
	k.doomed[foreign.Key] = &signingKey{store: k, entry: foreign}
	key := makes(t, k, "b")
	v.DeleteTransitKey(t, mount, key.(*signingKey).entry.Key)
	runTransit(t, k)
	select {
	case <-k.Changed():
	case <-time.After(30 * time.Second):
		t.Fatal("the lost key is not found out")
	}
}

// TestSlowVaultBlocksOneRequestAtATime: a Vault that hangs holds up one request at a time.
func TestSlowVaultBlocksOneRequestAtATime(t *testing.T) {
	v := vaulttest.Shared(t)
	proxy := vaulttest.NewProxy(t, v)
	config := transitFor(t, v, v.Transit(t), "eu-1")
	config.Vault.Address, config.Vault.CAFile, config.SignTimeout = proxy.Address, proxy.CAFile, time.Hour
	k := openTransit(t, config)
	key := makes(t, k, "a")
	k.health.record(taskSign, vault.ErrUnreachable)
	proxy.Break(vaulttest.Hang)
	done := make(chan error, 1)
	go func() {
		_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		done <- err
	}()
	select {
	case <-proxy.Broken():
	case <-time.After(30 * time.Second):
		t.Fatal("no request arrived")
	}
	for range 5 {
		refuses(t, key, vault.ErrUnreachable)
	}
	k.stop()
	require.ErrorIs(t, <-done, context.Canceled)
	require.ErrorIs(t, k.health.failing[taskSign], vault.ErrUnreachable, "the end of the member is no outcome")
}

// BenchmarkTransitSignature is what a signature costs with Vault on this machine.
func BenchmarkTransitSignature(b *testing.B) {
	v := vaulttest.Shared(b)
	key := makes(b, openTransit(b, transitFor(b, v, v.Transit(b), "eu-1")), "a")
	for b.Loop() {
		signsDigest(b, key)
	}
}
