package relationship

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust/standing"
)

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	good := Facts{
		Stored: true, LastSuccess: now.Add(-time.Minute), Interval: 5 * time.Minute,
		X509Until: now.Add(day), JWTKeys: 1,
		MaxStaleJWT: DefaultMaxStaleJWT,
	}
	with := func(change func(*Facts)) Facts { f := good; change(&f); return f }
	for _, test := range []struct {
		name  string
		facts Facts
		want  Validity
	}{
		{"confirmed a minute ago", good, Validity{State: standing.Fresh}},
		{
			"an operator's bundle, not confirmed yet", with(func(f *Facts) { f.Bootstrap = true }),
			Validity{State: standing.Fresh, Bootstrap: true},
		},
		{
			"nothing stored yet", with(func(f *Facts) { f.Stored = false }),
			Validity{standing.Pending, true, true, false},
		},
		{
			"three intervals ago, to the moment", with(func(f *Facts) { f.LastSuccess = now.Add(-15 * time.Minute) }),
			Validity{State: standing.Fresh},
		},
		{
			"longer than three intervals ago", with(func(f *Facts) { f.LastSuccess = now.Add(-15*time.Minute - 1) }),
			Validity{State: standing.Stale},
		},
		{
			"never confirmed", with(func(f *Facts) { f.LastSuccess = time.Time{} }),
			Validity{standing.Stale, false, true, false},
		},
		{
			"confirmed by a clock that is ahead", with(func(f *Facts) { f.LastSuccess = now.Add(time.Hour) }),
			Validity{State: standing.Fresh},
		},
		{
			"X.509 authorities expired", with(func(f *Facts) { f.X509Until = now.Add(-1) }),
			Validity{standing.Fresh, true, false, false},
		},
		{
			"no X.509 authority", with(func(f *Facts) { f.X509Until = time.Time{} }),
			Validity{standing.Fresh, true, false, false},
		},
		{
			"X.509 alone, expired", with(func(f *Facts) { f.X509Until, f.JWTKeys = now.Add(-1), 0 }),
			Validity{standing.Expired, true, true, false},
		},
		{"X.509 alone, valid", with(func(f *Facts) { f.JWTKeys = 0 }), Validity{standing.Fresh, false, true, false}},
		{
			"every key revoked", with(func(f *Facts) { f.X509Until, f.JWTKeys = time.Time{}, 0 }),
			Validity{standing.Expired, true, true, false},
		},
		{
			"JWT keys past seven days", with(func(f *Facts) { f.LastSuccess = now.Add(-7*day - 1) }),
			Validity{standing.Stale, false, true, false},
		},
		{
			"JWT keys alone past seven days",
			with(func(f *Facts) { f.LastSuccess, f.X509Until = now.Add(-7*day-1), time.Time{} }),
			Validity{standing.Expired, true, true, false},
		},
		{
			"X.509 a month without refresh", with(func(f *Facts) { f.LastSuccess = now.Add(-30 * day) }),
			Validity{standing.Stale, false, true, false},
		},
		{
			"X.509 past its max_stale", with(func(f *Facts) { f.LastSuccess, f.MaxStaleX509 = now.Add(-2*day), day }),
			Validity{standing.Stale, true, false, false},
		},
		{
			"both past their max_stale",
			with(func(f *Facts) { f.LastSuccess, f.MaxStaleX509, f.MaxStaleJWT = now.Add(-2*day), day, day }),
			Validity{standing.Expired, true, true, false},
		},
		{
			"JWT keys that never expire", with(func(f *Facts) { f.LastSuccess, f.MaxStaleJWT = now.Add(-30*day), 0 }),
			Validity{State: standing.Stale},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Judge(now, test.facts))
		})
	}
}

func TestLastKnownSuccess(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 11, 1, 12, minute, 0, 0, time.UTC) }
	for _, test := range []struct {
		name                        string
		reported, recorded, leading time.Time
		was                         standing.State
		want                        time.Time
	}{
		{"what was reported", at(10), at(0), at(5), standing.Fresh, at(10)},
		{"without a report, fresh before", time.Time{}, at(0), at(5), standing.Fresh, at(5)},
		{"not heard of yet, stale", time.Time{}, at(0), at(5), standing.Stale, at(0)},
		{"not heard of yet, expired", time.Time{}, at(0), at(5), standing.Expired, at(0)},
		{"put in since leadership began", time.Time{}, at(7), at(5), standing.Fresh, at(7)},
		{"reported before leadership began", at(3), at(0), at(5), standing.Fresh, at(3)},
		{"stale, and now refreshed", at(10), at(0), at(5), standing.Stale, at(10)},
		{"an operator's word after the last report", at(10), at(12), at(5), standing.Fresh, at(12)},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, LastKnownSuccess(test.reported, test.recorded, test.leading, test.was))
		})
	}
}

func TestPremature(t *testing.T) {
	for _, test := range []struct {
		name              string
		was, is           standing.State
		leading, interval time.Duration
		want              bool
	}{
		{"just come to lead", standing.Fresh, standing.Stale, time.Second, 5 * time.Minute, true},
		{"everybody had the time to tell", standing.Fresh, standing.Stale, time.Minute, 5 * time.Minute, false},
		{
			"a bundle that is fetched more often than that", standing.Fresh, standing.Stale, 10 * time.Second,
			10 * time.Second, false,
		},
		{"expired by its dates", standing.Fresh, standing.Expired, time.Second, 5 * time.Minute, false},
		{"fresh again", standing.Stale, standing.Fresh, time.Second, 5 * time.Minute, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Premature(test.was, test.is, test.leading, test.interval))
		})
	}
}

func TestFreshnessOfBootstrap(t *testing.T) {
	for _, test := range []struct {
		validity  Validity
		name      string
		freshness ententev1.Freshness
	}{
		{Validity{State: standing.Fresh}, "fresh", ententev1.Freshness_FRESHNESS_FRESH},
		{Validity{State: standing.Fresh, Bootstrap: true}, "bootstrap", ententev1.Freshness_FRESHNESS_BOOTSTRAP},
		{Validity{State: standing.Stale, Bootstrap: true}, "stale", ententev1.Freshness_FRESHNESS_STALE},
		{Validity{State: standing.Expired, Bootstrap: true}, "expired", ententev1.Freshness_FRESHNESS_EXPIRED},
	} {
		require.Equal(t, test.name, test.validity.Shown().String())
		require.Equal(t, test.freshness, test.validity.Shown().Freshness())
		require.Equal(t, test.validity.Bootstrap, ValidityOf(test.validity.Row(time.Now())).Bootstrap)
	}
}
