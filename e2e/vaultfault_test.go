package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

const (
	prepared = ententev1.AuthorityState_AUTHORITY_STATE_PREPARED
	active   = ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE
)

// vaultFault is a way in which Vault fails a member.
type vaultFault struct {
	name string
	// reason is the word by which log and metric name it.
	reason     string
	begin, end func(*ailing)
}

// ownFaults seal or stop a Vault, and so need one of their own.
var ownFaults = []vaultFault{
	{"sealed", "sealed", func(a *ailing) { a.v.Seal(a.t) }, func(a *ailing) { a.v.Unseal(a.t) }},
	{"stopped and restarted", "unreachable", func(a *ailing) { a.v.Stop(a.t) }, func(a *ailing) { a.v.Resume(a.t) }},
	{
		"a certificate of a foreign CA",
		"untrusted",
		func(a *ailing) { a.v.Reissue(a.t) },
		func(a *ailing) { a.trust(a.v.CAFile) },
	},
}

// proxyFaults leave Vault itself, and the other members below it, alone.
var proxyFaults = []vaultFault{
	{"500", "server", breaks(vaulttest.Status(http.StatusInternalServerError)), heals},
	{"429", "busy", breaks(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "2")
		vaulttest.Status(http.StatusTooManyRequests)(w, r)
	}), heals},
	{"garbage", "malformed", breaks(vaulttest.Answer("<html>a captive portal</html>")), heals},
	{"nothing at all", "unreachable", breaks(vaulttest.Hang), heals},
	{"cut", "unreachable", breaks(vaulttest.Cut), heals},
	{"token revoked and secret_id gone", "login", logOut, func(a *ailing) {
		a.write("secret_id", a.v.Write(a.t, "auth/"+a.auth+"/role/entente/secret-id", nil).Data["secret_id"].(string))
	}},
	{"default issuer gone", "server", func(a *ailing) {
		_, err := a.v.Client(a.t).Logical().DeleteWithContext(a.t.Context(), a.mount+"/issuer/root")
		require.NoError(a.t, err)
	}, func(a *ailing) {
		a.v.Root(a.t, a.mount, "next")
		a.v.SetDefault(a.t, a.mount, "next")
	}},
	{"max_lease_ttl too short", "too_short", maxLease("1h"), maxLease("87600h")},
}

func breaks(f vaulttest.Fault) func(*ailing) { return func(a *ailing) { a.proxy.Break(f) } }

func heals(a *ailing) { a.proxy.Heal() }

// maxLease bounds the lifetimes that the mount gives.
func maxLease(ttl string) func(*ailing) {
	return func(a *ailing) {
		require.NoError(
			a.t,
			a.v.Client(a.t).
				Sys().
				TuneMountAllowNilWithContext(a.t.Context(), a.mount, api.TuneMountConfigInput{MaxLeaseTTL: &ttl}),
		)
	}
}

// revokeTokens takes the member's login away, which it replaces.
func revokeTokens(a *ailing) {
	_, err := a.v.Client(a.t).Logical().WriteWithContext(a.t.Context(), "sys/leases/revoke-prefix/auth/"+a.auth, nil)
	require.NoError(a.t, err)
}

// logOut takes what it would log in by too.
func logOut(a *ailing) {
	role := "auth/" + a.auth + "/role/entente/"
	secrets, err := a.v.Client(a.t).Logical().ListWithContext(a.t.Context(), role+"secret-id")
	require.NoError(a.t, err)
	for _, accessor := range secrets.Data["keys"].([]any) {
		a.v.Write(a.t, role+"secret-id-accessor/destroy", map[string]any{"secret_id_accessor": accessor})
	}
	revokeTokens(a)
}

// outlives takes a member through a fault, from before its authority is due for renewal until one hour before its
// expiry: the member serves all callers, a line in the log and a metric name the fault, an alarm rises at half of the
// remaining time, Vault is not flooded, and the member recovers without a restart.
func (f vaultFault) outlives(t *testing.T, v *vaulttest.Vault, proxied bool) {
	a := below(t, v, proxied, 0, "")
	first := a.newest("", active)
	born, dies := first.GetNotBefore().AsTime(), first.GetNotAfter().AsTime()
	life := dies.Sub(born)
	served := a.keepIssuing(false)
	began := time.Now()
	f.begin(a)

	a.passUntil(born.Add(life / 2))
	a.logged("[ERROR]", "Vault is of no use at the moment", "reason="+f.reason)
	a.measures(0, "entente_vaultca_up", map[string]string{"task": "sign"})
	counted := map[string]string{"result": f.reason}
	switch f.reason {
	case "too_short":
		counted = nil // it is found out after Vault has answered
	case "login":
		counted = map[string]string{"operation": "login", "result": "rejected"}
	}
	require.Positive(t, a.metric("entente_vaultca_calls_total", counted))
	a.passUntil(born.Add(life*3/4 - time.Minute))
	require.Zero(t, a.metric("entente_authority_alarm", map[string]string{"kind": "x509"}), "the alarm is early")
	a.passUntil(born.Add(life * 3 / 4))
	a.alarm("x509", "late", 1)
	a.logged("[ERROR]", "alarm late: the active authority "+first.GetId()+" has no successor", "last_failure=")
	require.Zero(t, a.log.lines("no attempt has failed yet"))
	a.passUntil(dies.Add(-time.Hour))
	a.alarm("jwt", "late", 0) // its kind needs no Vault
	failed := a.metric(
		"entente_vaultca_calls_total", nil,
	) - a.metric(
		"entente_vaultca_calls_total", map[string]string{"result": "ok"},
	)
	require.Less(t, failed, 20+4*time.Since(began).Seconds(), "Vault is stormed")

	f.end(a)
	a.alarm("x509", "late", 0)
	a.pass(4 * time.Minute) // below a new anchor, the next one waits until everybody knows it
	a.newest(first.GetId(), active)
	a.logged("Vault works again")
	a.measures(1, "entente_vaultca_up", map[string]string{"task": "sign"})
	a.measures(0, "entente_authority_alarm", nil)
	served()
	// JWT authorities need no upstream. Their alarm may appear for a moment, if alarms are checked first after a jump
	// of the clock.
	for _, line := range []string{"alarm late", "the alarm is over"} {
		require.Equal(t, 1, a.log.lines(line, "kind=x509"), "%q is logged once for X.509", line)
	}
	require.Equal(t, 1, a.log.lines("Vault is of no use at the moment"), "the outage is logged once")
	require.LessOrEqual(t, a.log.lines("cannot prepare"), 2)
}

// TestMembersOutliveTheFaultsOfVault: each fault for nearly the whole second half of an authority's life, which is what
// a network that is cut for that long is too.
func TestMembersOutliveTheFaultsOfVault(t *testing.T) {
	t.Parallel()
	for _, f := range proxyFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.outlives(t, vaulttest.Shared(t), true)
		})
	}
	t.Run("of the whole server", func(t *testing.T) {
		t.Parallel()
		v := vaulttest.Start(t)
		for _, f := range ownFaults {
			t.Run(f.name, func(t *testing.T) { f.outlives(t, v, false) })
		}
	})
}

// renews has the authority of a member that is well renewed, and returns the next one once it is active.
func (a *ailing) renews(first *ententev1.Authority) *ententev1.Authority {
	a.t.Helper()
	born, dies := first.GetNotBefore().AsTime(), first.GetNotAfter().AsTime()
	a.passUntil(born.Add(dies.Sub(born) / 2))
	return a.newest(first.GetId(), active) // at once, since its anchor is long known
}

// TestWhatHealsAtOnceIsNoFault: a revoked token is replaced, and another certificate of the same CA taken, without a
// word.
func TestWhatHealsAtOnceIsNoFault(t *testing.T) {
	t.Parallel()
	a := below(t, vaulttest.Start(t), false, 0, "")
	first := a.newest("", active)
	served := a.keepIssuing(false)
	a.v.Renew(t)
	revokeTokens(a)
	a.renews(first)
	served()
	require.Zero(t, a.log.lines("[ERROR]"), a.log)
	require.Zero(t, a.log.lines("cannot prepare"), a.log)
}

// TestShortenedLifetimesAreTakenWithAnAlarm: a mount that grants less than requested, but long enough.
func TestShortenedLifetimesAreTakenWithAnAlarm(t *testing.T) {
	t.Parallel()
	a := below(t, vaulttest.Shared(t), true, 0, "5h")
	first := a.newest("", active)
	short := map[string]string{"alarm": "short"}
	a.measures(1, "entente_vaultca_alarm", short)
	require.WithinDuration(
		t, first.GetNotBefore().AsTime().Add(5*time.Hour), first.GetNotAfter().AsTime(), 2*time.Minute,
	)
	a.logged("[WARN]",
		"Vault gave the signing certificate less lifetime than requested; raise the mount's max_lease_ttl")
	served := a.keepIssuing(false)
	second := a.renews(first) // at half of what it was given
	maxLease("87600h")(a)
	third := a.renews(second)
	served()
	require.Greater(t, third.GetNotAfter().AsTime().Sub(a.now()), 19*time.Hour)
	require.Zero(t, a.log.lines("alarm late"))
}

// TestClocksApart: a member whose clock is ten minutes ahead of Vault's, or behind it, keeps working, and reports it
// where it matters.
func TestClocksApart(t *testing.T) {
	t.Parallel()
	clock := map[string]string{"alarm": "clock"}
	t.Run("ahead of Vault", func(t *testing.T) {
		t.Parallel()
		a := below(t, vaulttest.Shared(t), true, 10*time.Minute, "")
		first := a.newest("", active)
		served := a.keepIssuing(false)
		a.renews(first)
		served()
		require.Zero(t, a.metric("entente_vaultca_alarm", clock), "what has begun already is no trouble")
	})
	t.Run("behind Vault from the start", func(t *testing.T) {
		t.Parallel()
		a := below(t, vaulttest.Shared(t), true, -10*time.Minute, "")
		first := a.newest("", prepared)
		require.Greater(t, first.GetNotBefore().AsTime().Sub(a.now()), 5*time.Minute)
		a.measures(1, "entente_vaultca_alarm", clock)
		a.logged(
			"[WARN]", "the signing certificate begins in the future: Vault's clock is ahead of this member's; set both",
		)
		_, err := a.issue(t.Context())
		require.ErrorContains(t, err, "member has an active")
		a.pass(10 * time.Minute)
		require.Equal(t, first.GetId(), a.newest("", active).GetId())
		served := a.keepIssuing(false)
		a.renews(first)
		served()
		a.measures(0, "entente_vaultca_alarm", clock)
	})
	t.Run("behind Vault in the middle of a life", func(t *testing.T) {
		t.Parallel()
		a := below(t, vaulttest.Shared(t), true, 0, "")
		first := a.newest("", active)
		a.pass(-8 * time.Minute)
		served := a.keepIssuing(true)
		_, err := a.manager.AuthorityService().RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{})
		require.NoError(t, err)
		next := a.newest(first.GetId(), prepared)
		require.Greater(t, next.GetNotBefore().AsTime().Sub(a.now()), 5*time.Minute)
		a.measures(1, "entente_vaultca_alarm", clock)
		a.pass(4 * time.Minute) // three refresh hints, but it is not valid yet
		require.Equal(t, next.GetId(), a.newest(first.GetId(), prepared).GetId())
		a.pass(4 * time.Minute) // the clock is set
		a.newest(first.GetId(), active)
		served()
		require.True(t, strings.Contains(a.log.String(), "Vault's clock is ahead of this member's"))
	})
}
