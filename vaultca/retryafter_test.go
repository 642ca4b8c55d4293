package vaultca

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/vaulttest"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		status int
		header string
		want   time.Duration
	}{
		{"seconds", 429, "7", 7 * time.Second},
		{"seconds, with spaces", 429, " 7 ", 7 * time.Second},
		{"a moment", 429, "Fri, 01 May 2026 12:00:30 GMT", 30 * time.Second},
		{"a moment that is over", 429, "Fri, 01 May 2026 11:00:00 GMT", 0},
		{"too long", 429, "86400", longestRest},
		{"a moment too far", 503, "Fri, 01 May 2099 12:00:30 GMT", longestRest},
		{"none", 429, "", 0},
		{"negative", 429, "-5", 0},
		{"more than any number", 429, "99999999999999999999", 0},
		{"words", 429, "soon", 0},
		{"of another status", 500, "7", 0},
		{"of success", 200, "7", 0},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, retryAfter(c.status, c.header, now)) })
	}
}

// TestRetryAfterIsHonoured: nothing is sent before the time that Vault named, neither by the call that was turned away nor by
// others; afterwards the call goes on by itself.
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
	u.caller.config.RetryFor = 300 * time.Millisecond
	proxy.Break(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Retry-After", "3600")
		vaulttest.Status(http.StatusTooManyRequests)(w, r)
	})
	for range 3 {
		_, err := u.SignCA(t.Context(), asked(t))
		require.ErrorIs(t, err, ErrBusy)
		require.Equal(t, "busy", Reason(err))
	}
	require.EqualValues(t, 2, calls.Load())
	left := u.caller.rest.left()
	require.LessOrEqual(t, left, longestRest+longestRest/10, "bounded")
	require.Greater(t, left, longestRest/2)
	require.EqualValues(t, 2, testutil.ToFloat64(u.metrics.calls.WithLabelValues("read_issuer", "busy"))+testutil.ToFloat64(u.metrics.calls.WithLabelValues("sign", "busy")))
}

// TestNamespaceGoesWithEveryCall: login, issuer, signature.
func TestNamespaceGoesWithEveryCall(t *testing.T) {
	v := vaulttest.Shared(t)
	proxy := vaulttest.NewProxy(t, v)
	config := configFor(t, v, v.PKI(t), nil)
	config.Address, config.CAFile, config.Namespace = proxy.Address, proxy.CAFile, "team/eu"
	u := open(t, config)
	seen := proxy.Watch()
	_, _ = u.SignCA(t.Context(), asked(t)) // the free edition has no namespaces, and may refuse it
	paths := 0
	for len(seen) > 0 {
		r := <-seen
		require.Equal(t, "team/eu", r.Header.Get("X-Vault-Namespace"), r.URL.Path)
		paths++
	}
	require.Positive(t, paths)
}
