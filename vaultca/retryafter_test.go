package vaultca

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// TestRetryAfterIsHonoured: no call sends a request before the time that Vault named. The rejected call then continues
// without its caller.
func TestRetryAfterIsHonoured(t *testing.T) {
	v := vaulttest.Shared(t)
	proxy := vaulttest.NewProxy(t, v)
	config := configFor(t, v, v.PKI(t), nil)
	config.Address, config.CAFile, config.RetryFor = proxy.Address, proxy.CAFile, 20*time.Second
	u := open(t, config)
	signs(t, u)

	var calls atomic.Int32
	var turnedAway atomic.Int64
	proxy.Break(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		turnedAway.Store(time.Now().UnixNano())
		proxy.Heal()
		w.Header().Set("Retry-After", "2")
		vaulttest.Status(http.StatusTooManyRequests)(w, r)
	})
	signs(t, u)
	require.EqualValues(t, 1, calls.Load())
	require.GreaterOrEqual(t, time.Since(time.Unix(0, turnedAway.Load())), 2*time.Second)

	// A rest that is longer than all attempts may take ends the call at once, and so the next one, which is not sent.
	u.caller.Config.RetryFor = 300 * time.Millisecond
	proxy.Break(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Retry-After", "3600")
		vaulttest.Status(http.StatusTooManyRequests)(w, r)
	})
	for range 3 {
		_, err := u.SignCA(t.Context(), signRequest(t))
		require.ErrorIs(t, err, vault.ErrBusy)
		require.Equal(t, "busy", vault.Reason(err))
	}
	require.EqualValues(t, 2, calls.Load())
	left := u.caller.Resting()
	require.LessOrEqual(t, left, time.Minute+time.Minute/10, "bounded")
	require.Greater(t, left, time.Minute/2)
	require.EqualValues(
		t,
		2,
		testutil.ToFloat64(u.caller.Calls("read_issuer", "busy"))+testutil.ToFloat64(u.caller.Calls("sign", "busy")),
	)
}

// TestNamespaceGoesWithEveryCall: login, issuer, signature.
func TestNamespaceGoesWithEveryCall(t *testing.T) {
	v := vaulttest.Shared(t)
	proxy := vaulttest.NewProxy(t, v)
	config := configFor(t, v, v.PKI(t), nil)
	config.Address, config.CAFile, config.Namespace = proxy.Address, proxy.CAFile, "team/eu"
	u := open(t, config)
	seen := proxy.Watch()
	_, _ = u.SignCA(t.Context(), signRequest(t)) // the free edition has no namespaces, and may reject the request
	paths := 0
	for len(seen) > 0 {
		r := <-seen
		require.Equal(t, "team/eu", r.Header.Get("X-Vault-Namespace"), r.URL.Path)
		paths++
	}
	require.Positive(t, paths)
}
