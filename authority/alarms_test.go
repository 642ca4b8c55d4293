package authority

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/upstream"
)

func TestAlarmTracker(t *testing.T) {
	var l alarmTracker
	key := alarmKey{domainKind{"eu.example.org", plan.X509}, "none"}
	for i, step := range []struct {
		on, exists   bool
		began, ended bool
	}{
		{on: true},                             // nothing yet: a member that has just started has lost nothing
		{exists: true},                         // its first authority
		{on: true, began: true},                // it is gone
		{on: true},                             // and still is: logged once
		{exists: true, ended: true},            // back
		{exists: true},                         // logged once
		{on: true, exists: true, began: true},  // as an alarm that begins while there is one
		{on: false, exists: true, ended: true}, // and ends
	} {
		began, ended := l.update(key, step.on, step.exists)
		require.Equal(t, step.began, began, "step %d", i)
		require.Equal(t, step.ended, ended, "step %d", i)
	}
	began, _ := l.update(alarmKey{domainKind{"eu.example.org", plan.JWT}, "none"}, true, false)
	require.False(t, began, "another kind has not had any")
}

func TestFrom(t *testing.T) {
	names := []string{"a", "b", "d"}
	for first, want := range map[string]string{
		"": "a b d", "a": "a b d", "b": "b d a", "c": "d a b", "d": "d a b", "e": "a b d",
	} {
		require.Equal(t, want, strings.Join(rotate(names, first), " "), first)
	}
	require.Empty(t, rotate(nil, "a"))
}

// failing is an upstream that a test can make fail, or block until its caller ends, before or after a failed attempt.
type failing struct {
	upstream.Upstream
	mu   sync.Mutex
	err  error
	hang bool
}

func (u *failing) set(err error, hang bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err, u.hang = err, hang
}

func (u *failing) SignCA(ctx context.Context, r upstream.Request) (*upstream.Signed, error) {
	u.mu.Lock()
	err, hang := u.err, u.hang
	u.mu.Unlock()
	if hang {
		if err != nil {
			r.Failed(err)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return u.Upstream.SignCA(ctx, r)
}

// upstreamOf configures an upstream that can fail.
func upstreamOf(t *testing.T) (*failing, func(*Config)) {
	t.Helper()
	u := &failing{}
	return u, func(c *Config) {
		keys, err := keys.OpenFolder(c.KeyDir)
		require.NoError(t, err)
		u.Upstream = upstream.NewSelfSigned(keys, 365*24*time.Hour)
		c.Upstream = u
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) count(part string) int { return strings.Count(l.String(), part) }

// jump sets the clock forward without waiting for idle members: a member whose upstream fails is never idle.
func (f *fleet) jump(d time.Duration) {
	f.mu.Lock()
	f.ahead += d
	f.mu.Unlock()
	f.wake()
}

// TestAlarmsAreLoggedOnce: an outage of the upstream for longer than the life of an authority takes a few lines in the
// log, the metric follows, and the member recovers by itself.
func TestAlarmsAreLoggedOnce(t *testing.T) {
	u, with := upstreamOf(t)
	out := &lines{}
	f, c := newSingle(t, func(config *Config) {
		with(config)
		config.Logger = hclog.New(&hclog.LoggerOptions{Output: out, Level: hclog.Info, DisableTime: true})
	})
	once := func(line string) {
		t.Helper()
		require.Eventually(t, func() bool { f.wake(); return out.count(line) == 1 }, testTimeout, pollInterval, "%s",
			line)
	}
	u.set(errors.New("the upstream is away"), false)

	f.jump(plan.DefaultCATTL*3/4 - time.Hour)
	require.Eventually(t, func() bool {
		f.wake()
		return out.count(`cannot prepare this member's next authorities; retrying`) > 0
	}, testTimeout, pollInterval)
	require.Zero(t, out.count("alarm"), out.String())
	require.Zero(t, c.metricSum("entente_authority_alarm"))
	require.Eventually(t, func() bool {
		return c.issuer.State().Domains[home].Signer(plan.JWT) != "" && len(f.list(home)) > 2
	}, testTimeout, pollInterval, "JWT authorities need no upstream")

	f.jump(2 * time.Hour)
	once("alarm late: the active authority")
	require.Contains(t, out.String(), "the upstream is away")
	require.Equal(t, 1.0, c.metricSum("entente_authority_alarm"))

	f.jump(plan.DefaultCATTL / 4)
	once("alarm none: this member has no authority to sign with any more")
	once("the alarm is over: alarm=late")
	require.Equal(t, 1.0, c.metricSum("entente_authority_alarm"))

	u.set(nil, false)
	once("the alarm is over: alarm=none")
	once("recovered: can prepare this member's next authorities")
	f.settle()
	require.Zero(t, c.metricSum("entente_authority_alarm"))
	for _, line := range []string{"cannot prepare", "alarm late", "alarm none"} {
		require.Equal(t, 1, out.count(line), out.String())
	}
}

// TestHangingUpstreamDelaysNothingElse: while the upstream blocks, prepared authorities are activated and expired ones
// are ended.
func TestHangingUpstreamDelaysNothingElse(t *testing.T) {
	u, with := upstreamOf(t)
	f, c := newSingle(t, with)
	first := c.issuer.State().Domains[home].Signer(plan.X509)
	f.advance(plan.DefaultCATTL / 2) // the next ones are prepared
	u.set(nil, true)
	active := func() string { return c.issuer.State().Domains[home].Signer(plan.X509) }
	f.jump(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	require.Eventually(t, func() bool { return active() != first }, testTimeout, pollInterval)
	f.jump(2 * plan.DefaultCATTL)
	require.Eventually(t, func() bool { return active() == "" }, testTimeout, pollInterval,
		"it has expired, and is not ended")
}

// TestHangingUpstreamDelaysNoJWTAuthorities: this holds from the first attempt on, before it has failed.
func TestHangingUpstreamDelaysNoJWTAuthorities(t *testing.T) {
	u, with := upstreamOf(t)
	out := &lines{}
	f, c := newSingle(t, func(config *Config) {
		with(config)
		config.Logger = hclog.New(&hclog.LoggerOptions{Output: out, Level: hclog.Info, DisableTime: true})
	})
	jwt := func() string { return c.issuer.State().Domains[home].Signer(plan.JWT) }
	first := jwt()
	u.set(nil, true)
	f.jump(plan.DefaultCATTL / 2)
	require.Eventually(t, func() bool { return f.newest(plan.JWT) != first }, testTimeout, pollInterval,
		"the next JWT authority is prepared")
	f.jump(plan.JWTLead(plan.DefaultCATTL))
	require.Eventually(t, func() bool { return jwt() != first }, testTimeout, pollInterval, "and becomes active")
	require.Zero(t, out.count("cannot prepare"), out.String())
}

// TestFirstFailedAttemptIsTheReason: an alarm names the failure of the upstream while the upstream still retries.
func TestFirstFailedAttemptIsTheReason(t *testing.T) {
	u, with := upstreamOf(t)
	out := &lines{}
	f, c := newSingle(t, func(config *Config) {
		with(config)
		config.Logger = hclog.New(&hclog.LoggerOptions{Output: out, Level: hclog.Info, DisableTime: true})
	})
	u.set(errors.New("the upstream is away"), true)
	jwt := f.newest(plan.JWT)
	f.jump(plan.DefaultCATTL / 2)
	require.Eventually(t, func() bool {
		_, failed := c.preparer.failures.get(home.Name(), plan.X509)
		return failed && f.newest(plan.JWT) != jwt // else its alarm would rise too
	}, testTimeout, pollInterval)
	f.jump(plan.DefaultCATTL/4 + time.Minute)
	require.Eventually(t, func() bool { f.wake(); return out.count("alarm late") == 1 }, testTimeout, pollInterval)
	require.Contains(t, out.String(), `last_failure="the upstream is away"`)
	require.NotContains(t, out.String(), "no attempt has failed yet")
}

// TestNewDomainBeginsWithAllKinds: all kinds are in one bundle, unless the upstream fails. JWT authorities do not wait
// beyond its first failure.
func TestNewDomainBeginsWithAllKinds(t *testing.T) {
	u, with := upstreamOf(t)
	f, c := newSingle(t, with)
	sequence, _ := f.bundle(home).Sequence()
	require.Equal(t, uint64(1), sequence)
	require.Len(t, f.bundle(home).X509Authorities(), 1)
	require.Len(t, f.bundle(home).JWTAuthorities(), 1)

	u.set(errors.New("the upstream is away"), true)
	td := spiffeid.RequireTrustDomainFromString("us.example.org")
	_, err := c.DomainService().
		CreateDomain(t.Context(), &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: td.Name()}})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		d := c.issuer.State().Domains[td]
		return d != nil && d.Signer(plan.JWT) != ""
	}, testTimeout, pollInterval)
	require.Empty(t, c.issuer.State().Domains[td].Signer(plan.X509))
}

// newest returns the ID of the newest authority of a kind in the home domain.
func (f *fleet) newest(kind plan.Kind) (id string) {
	var number uint64
	for _, a := range f.nodes[0].issuer.State().Domains[home].Authorities {
		if a.Kind == kind && a.Number > number {
			id, number = a.ID, a.Number
		}
	}
	return id
}
