package relationship

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/trust"
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
		want  Standing
	}{
		{"confirmed a minute ago", good, Standing{State: trust.Fresh}},
		{"nothing stored yet", with(func(f *Facts) { f.Stored = false }), Standing{trust.Pending, true, true}},
		{
			"three intervals ago, to the moment", with(func(f *Facts) { f.LastSuccess = now.Add(-15 * time.Minute) }),
			Standing{State: trust.Fresh},
		},
		{
			"longer than three intervals ago", with(func(f *Facts) { f.LastSuccess = now.Add(-15*time.Minute - 1) }),
			Standing{State: trust.Stale},
		},
		{"never confirmed", with(func(f *Facts) { f.LastSuccess = time.Time{} }), Standing{trust.Stale, false, true}},
		{
			"confirmed by a clock that is ahead", with(func(f *Facts) { f.LastSuccess = now.Add(time.Hour) }),
			Standing{State: trust.Fresh},
		},
		{
			"X.509 authorities expired", with(func(f *Facts) { f.X509Until = now.Add(-1) }),
			Standing{trust.Fresh, true, false},
		},
		{"no X.509 authority", with(func(f *Facts) { f.X509Until = time.Time{} }), Standing{trust.Fresh, true, false}},
		{
			"X.509 alone, expired", with(func(f *Facts) { f.X509Until, f.JWTKeys = now.Add(-1), 0 }),
			Standing{trust.Expired, true, true},
		},
		{"X.509 alone, valid", with(func(f *Facts) { f.JWTKeys = 0 }), Standing{trust.Fresh, false, true}},
		{
			"every key revoked", with(func(f *Facts) { f.X509Until, f.JWTKeys = time.Time{}, 0 }),
			Standing{trust.Expired, true, true},
		},
		{
			"JWT keys past seven days", with(func(f *Facts) { f.LastSuccess = now.Add(-7*day - 1) }),
			Standing{trust.Stale, false, true},
		},
		{
			"JWT keys alone past seven days",
			with(func(f *Facts) { f.LastSuccess, f.X509Until = now.Add(-7*day-1), time.Time{} }),
			Standing{trust.Expired, true, true},
		},
		{
			"X.509 a month without refresh", with(func(f *Facts) { f.LastSuccess = now.Add(-30 * day) }),
			Standing{trust.Stale, false, true},
		},
		{
			"X.509 past its max_stale", with(func(f *Facts) { f.LastSuccess, f.MaxStaleX509 = now.Add(-2*day), day }),
			Standing{trust.Stale, true, false},
		},
		{
			"both past their max_stale",
			with(func(f *Facts) { f.LastSuccess, f.MaxStaleX509, f.MaxStaleJWT = now.Add(-2*day), day, day }),
			Standing{trust.Expired, true, true},
		},
		{
			"JWT keys that never expire", with(func(f *Facts) { f.LastSuccess, f.MaxStaleJWT = now.Add(-30*day), 0 }),
			Standing{State: trust.Stale},
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
		was                         trust.State
		want                        time.Time
	}{
		{"what was reported", at(10), at(0), at(5), trust.Fresh, at(10)},
		{"not heard of yet, in good standing", time.Time{}, at(0), at(5), trust.Fresh, at(5)},
		{"not heard of yet, stale", time.Time{}, at(0), at(5), trust.Stale, at(0)},
		{"not heard of yet, expired", time.Time{}, at(0), at(5), trust.Expired, at(0)},
		{"put in since the lead began", time.Time{}, at(7), at(5), trust.Fresh, at(7)},
		{"reported from before the lead", at(3), at(0), at(5), trust.Fresh, at(3)},
		{"stale, and now refreshed", at(10), at(0), at(5), trust.Stale, at(10)},
		{"an operator's word after the last report", at(10), at(12), at(5), trust.Fresh, at(12)},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, LastKnownSuccess(test.reported, test.recorded, test.leading, test.was))
		})
	}
}

func TestPremature(t *testing.T) {
	for _, test := range []struct {
		name              string
		was, is           trust.State
		leading, interval time.Duration
		want              bool
	}{
		{"just come to lead", trust.Fresh, trust.Stale, time.Second, 5 * time.Minute, true},
		{"everybody had the time to tell", trust.Fresh, trust.Stale, time.Minute, 5 * time.Minute, false},
		{
			"a bundle that is fetched more often than that", trust.Fresh, trust.Stale, 10 * time.Second,
			10 * time.Second, false,
		},
		{"expired by its dates", trust.Fresh, trust.Expired, time.Second, 5 * time.Minute, false},
		{"fresh again", trust.Stale, trust.Fresh, time.Second, 5 * time.Minute, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Premature(test.was, test.is, test.leading, test.interval))
		})
	}
}
