package vaultca

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

func TestFaultsHaveNamesAndHeal(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	proxy := vaulttest.NewProxy(t, v)
	for _, c := range []struct {
		name   string
		fault  vaulttest.Fault
		want   error
		reason string
	}{
		{"500", vaulttest.Status(http.StatusInternalServerError), vault.ErrServer, "server"},
		{"502", vaulttest.Status(http.StatusBadGateway), vault.ErrServer, "server"},
		{"503", vaulttest.Status(http.StatusServiceUnavailable), vault.ErrSealed, "sealed"},
		{"429", vaulttest.Status(http.StatusTooManyRequests), vault.ErrBusy, "busy"},
		{"garbage", vaulttest.Answer("<html>a captive portal</html>"), vault.ErrMalformed, "malformed"},
		{"empty", vaulttest.Answer(""), vault.ErrMalformed, "malformed"},
		{"no certificate", vaulttest.Answer(`{"data":{"certificate":"none"}}`), vault.ErrMalformed, "malformed"},
		{"too large", vaulttest.Flood, vault.ErrTooLarge, "too_large"},
		{"hang", vaulttest.Hang, vault.ErrUnreachable, "unreachable"},
		{"cut", vaulttest.Cut, vault.ErrUnreachable, "unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := configFor(t, v, mount, nil)
			config.Address, config.CAFile = proxy.Address, proxy.CAFile
			if c.name == "hang" {
				config.Timeout = 200 * time.Millisecond
			}
			u := open(t, config)
			signs(t, u)
			proxy.Break(c.fault)
			_, err := u.SignCA(t.Context(), signRequest(t))
			proxy.Heal()
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.reason, vault.Reason(err))
			require.Zero(t, testutil.ToFloat64(u.metrics.up.WithLabelValues(domain.Name(), "sign")))
			signs(t, u)
			require.Equal(t, 1.0, testutil.ToFloat64(u.metrics.up.WithLabelValues(domain.Name(), "sign")))
		})
	}
}

func TestSealedAndRestartedVaultHeals(t *testing.T) {
	v := vaulttest.Start(t)
	u := open(t, configFor(t, v, v.PKI(t), nil))
	signs(t, u)
	v.Seal(t)
	_, err := u.SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrSealed)
	v.Unseal(t)
	heals(t, u)

	v.Stop(t)
	_, err = u.SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrUnreachable)
	v.Resume(t)
	heals(t, u)
}

func TestChangedCertificateOfVault(t *testing.T) {
	v := vaulttest.Start(t)
	config := configFor(t, v, v.PKI(t), nil)
	old := t.TempDir() + "/ca.pem"
	require.NoError(t, copyFile(v.CAFile, old))
	config.CAFile, config.ServerName = old, vaulttest.ServerName
	u := open(t, config)
	signs(t, u)
	v.Reissue(t)
	_, err := u.SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrUntrusted)
	require.NoError(t, copyFile(v.CAFile, old))
	heals(t, u)
}

func TestRevokedTokenIsReplaced(t *testing.T) {
	v := vaulttest.Shared(t)
	u := open(t, configFor(t, v, v.PKI(t), nil))
	signs(t, u)
	was := u.caller.Token()
	require.NoError(t, v.Client(t).Auth().Token().RevokeOrphan(was))
	signs(t, u)
	require.NotEqual(t, was, u.caller.Token())
}

func TestLoginIsRenewedAndThenReplaced(t *testing.T) {
	v := vaulttest.Shared(t)
	u := open(t, configFor(t, v, v.PKI(t), map[string]any{"token_ttl": "2s", "token_max_ttl": "5s"}))
	run(t, u)
	signs(t, u)
	first := u.caller.Token()
	require.Eventually(t, func() bool {
		return testutil.ToFloat64(u.caller.Calls("renew", "ok")) > 0 && u.caller.Token() == first
	}, 10*time.Second, 10*time.Millisecond, "the login is renewed")
	require.Eventually(t, func() bool {
		return u.caller.Token() != first
	}, 15*time.Second, 10*time.Millisecond, "what cannot be renewed further is replaced")
	require.Zero(t, testutil.ToFloat64(u.caller.Calls("sign", "denied")))
}

func TestShortenedLifetime(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.EmptyPKI(t)
	v.Write(t, mount+"/root/generate/internal", map[string]any{"common_name": "short", "key_type": "ec", "ttl": "5h"})
	config := configFor(t, v, mount, nil)
	u := open(t, config)
	signs(t, u)
	require.Equal(t, 1.0, testutil.ToFloat64(u.metrics.alarm.WithLabelValues(domain.Name(), "short")))

	config.Registerer = nil
	config.Now = func() time.Time { return time.Now().Add(4 * time.Hour) }
	_, err := open(t, config).SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrTooShort)

	config.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
	behind := open(t, config)
	signed := signs(t, behind)
	require.True(t, signed.Chain[0].NotBefore.After(config.Now()))
	require.Equal(t, 1.0, testutil.ToFloat64(behind.metrics.alarm.WithLabelValues(domain.Name(), "clock")))
}

func TestDefaultIssuerGone(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	u := open(t, configFor(t, v, mount, nil))
	signs(t, u)
	_, err := v.Client(t).Logical().Delete(mount + "/issuer/root")
	require.NoError(t, err)
	_, err = u.SignCA(t.Context(), signRequest(t))
	require.Contains(t, []string{"not_found", "rejected", "server"}, vault.Reason(err), "%v", err)
	v.Root(t, mount, "next")
	v.SetDefault(t, mount, "next")
	heals(t, u)
}

// logged is what a member writes in its log.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func TestFailureIsOneLineInTheLog(t *testing.T) {
	v := vaulttest.Shared(t)
	proxy, log := vaulttest.NewProxy(t, v), &logged{}
	config := configFor(t, v, v.PKI(t), nil)
	config.Address, config.CAFile = proxy.Address, proxy.CAFile
	config.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info, DisableTime: true})
	u := open(t, config)
	signs(t, u)
	proxy.Break(vaulttest.Status(http.StatusServiceUnavailable))
	for range 3 {
		_, err := u.SignCA(t.Context(), signRequest(t))
		require.ErrorIs(t, err, vault.ErrSealed)
	}
	proxy.Heal()
	signs(t, u)
	require.Len(t, log.lines, 2)
	require.Contains(t, log.lines[0], "reason=sealed")
	require.Contains(t, log.lines[0], vault.ErrSealed.Error())
	require.Equal(t, "[INFO]  Vault works again: trust_domain=eu.example.org\n", log.lines[1])
}

// TestFirstFailureIsReportedAtOnce: what fails is in the log, in the metric and with the caller while it is still tried
// again.
func TestFirstFailureIsReportedAtOnce(t *testing.T) {
	v := vaulttest.Shared(t)
	for _, c := range []struct{ name, path, task string }{
		{"signing", "/sign-intermediate", "sign"}, {"anchors", "/json", "anchors"}, {"login", "/login", "sign"},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy, log := vaulttest.NewProxy(t, v), &logged{}
			config := configFor(t, v, v.PKI(t), nil)
			config.Address, config.CAFile, config.RetryFor = proxy.Address, proxy.CAFile, time.Hour
			config.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info, DisableTime: true})
			u := open(t, config)
			proxy.Break(proxy.Only(c.path, vaulttest.Status(http.StatusServiceUnavailable)))
			r := signRequest(t)
			r.Failed = func(err error) {
				require.ErrorIs(t, err, vault.ErrSealed)
				require.Equal(t, 1, log.count("reason=sealed"))
				require.Zero(t, testutil.ToFloat64(u.metrics.up.WithLabelValues(domain.Name(), c.task)))
				proxy.Heal() // so that the next attempt ends what would else take an hour
			}
			_, err := u.SignCA(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, 1.0, testutil.ToFloat64(u.metrics.up.WithLabelValues(domain.Name(), "sign")))
			require.Equal(t, 1, log.count("Vault works again"))
		})
	}
}

func (l *logged) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		n += strings.Count(line, part)
	}
	return n
}
