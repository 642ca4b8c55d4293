package relationship

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	good := Facts{
		Stored: true, LastSuccess: now.Add(-time.Minute), Interval: 5 * time.Minute, X509Until: now.Add(day), JWTKeys: 1,
		MaxStaleJWT: DefaultMaxStaleJWT,
	}
	with := func(change func(*Facts)) Facts { f := good; change(&f); return f }
	for _, test := range []struct {
		name  string
		facts Facts
		want  Standing
	}{
		{"confirmed a minute ago", good, Standing{State: Fresh}},
		{"nothing stored yet", with(func(f *Facts) { f.Stored = false }), Standing{Pending, true, true}},
		{"three intervals ago, to the moment", with(func(f *Facts) { f.LastSuccess = now.Add(-15 * time.Minute) }), Standing{State: Fresh}},
		{"longer than three intervals ago", with(func(f *Facts) { f.LastSuccess = now.Add(-15*time.Minute - 1) }), Standing{State: Stale}},
		{"never confirmed", with(func(f *Facts) { f.LastSuccess = time.Time{} }), Standing{Stale, false, true}},
		{"confirmed by a clock that is ahead", with(func(f *Facts) { f.LastSuccess = now.Add(time.Hour) }), Standing{State: Fresh}},
		{"X.509 authorities expired", with(func(f *Facts) { f.X509Until = now.Add(-1) }), Standing{Fresh, true, false}},
		{"no X.509 authority", with(func(f *Facts) { f.X509Until = time.Time{} }), Standing{Fresh, true, false}},
		{"X.509 alone, expired", with(func(f *Facts) { f.X509Until, f.JWTKeys = now.Add(-1), 0 }), Standing{Expired, true, true}},
		{"X.509 alone, valid", with(func(f *Facts) { f.JWTKeys = 0 }), Standing{Fresh, false, true}},
		{"every key revoked", with(func(f *Facts) { f.X509Until, f.JWTKeys = time.Time{}, 0 }), Standing{Expired, true, true}},
		{"JWT keys past seven days", with(func(f *Facts) { f.LastSuccess = now.Add(-7*day - 1) }), Standing{Stale, false, true}},
		{"JWT keys alone past seven days", with(func(f *Facts) { f.LastSuccess, f.X509Until = now.Add(-7*day-1), time.Time{} }), Standing{Expired, true, true}},
		{"X.509 a month without refresh", with(func(f *Facts) { f.LastSuccess = now.Add(-30 * day) }), Standing{Stale, false, true}},
		{"X.509 past its max_stale", with(func(f *Facts) { f.LastSuccess, f.MaxStaleX509 = now.Add(-2*day), day }), Standing{Stale, true, false}},
		{"both past their max_stale", with(func(f *Facts) { f.LastSuccess, f.MaxStaleX509, f.MaxStaleJWT = now.Add(-2*day), day, day }), Standing{Expired, true, true}},
		{"JWT keys that never expire", with(func(f *Facts) { f.LastSuccess, f.MaxStaleJWT = now.Add(-30*day), 0 }), Standing{State: Stale}},
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
		was                         State
		want                        time.Time
	}{
		{"what was reported", at(10), at(0), at(5), Fresh, at(10)},
		{"not heard of yet, in good standing", time.Time{}, at(0), at(5), Fresh, at(5)},
		{"not heard of yet, stale", time.Time{}, at(0), at(5), Stale, at(0)},
		{"not heard of yet, expired", time.Time{}, at(0), at(5), Expired, at(0)},
		{"put in since the lead began", time.Time{}, at(7), at(5), Fresh, at(7)},
		{"reported from before the lead", at(3), at(0), at(5), Fresh, at(3)},
		{"stale, and now refreshed", at(10), at(0), at(5), Stale, at(10)},
		{"an operator's word after the last report", at(10), at(12), at(5), Fresh, at(12)},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, LastKnownSuccess(test.reported, test.recorded, test.leading, test.was))
		})
	}
}

func TestPremature(t *testing.T) {
	for _, test := range []struct {
		name              string
		was, is           State
		leading, interval time.Duration
		want              bool
	}{
		{"just come to lead", Fresh, Stale, time.Second, 5 * time.Minute, true},
		{"everybody had the time to tell", Fresh, Stale, time.Minute, 5 * time.Minute, false},
		{"a bundle that is fetched more often than that", Fresh, Stale, 10 * time.Second, 10 * time.Second, false},
		{"expired by its dates", Fresh, Expired, time.Second, 5 * time.Minute, false},
		{"fresh again", Stale, Fresh, time.Second, 5 * time.Minute, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Premature(test.was, test.is, test.leading, test.interval))
		})
	}
}

func TestStateWords(t *testing.T) {
	words := make([]string, 0, 6)
	reliable := make([]bool, 0, 6)
	for s := None; s <= Expired; s++ {
		words, reliable = append(words, s.String()), append(reliable, s.Reliable())
	}
	require.Equal(t, []string{"none", "suspended", "pending", "fresh", "stale", "expired"}, words)
	require.Equal(t, []bool{false, false, false, true, true, false}, reliable)
}
