package federation

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRestsUntil(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	good := Facts{Stored: true, LastSuccess: now, Interval: 5 * time.Minute, X509Until: now.Add(time.Hour), JWTKeys: 1, MaxStaleJWT: DefaultMaxStaleJWT}
	with := func(change func(*Facts)) Facts { f := good; change(&f); return f }
	for _, test := range []struct {
		name  string
		facts Facts
		want  time.Duration
	}{
		{"in good standing", good, longestRest},
		{"stale in ten seconds", with(func(f *Facts) { f.LastSuccess = now.Add(-15*time.Minute + 10*time.Second) }), 10 * time.Second},
		{"stale after this very moment", with(func(f *Facts) { f.LastSuccess = now.Add(-15 * time.Minute) }), keepEvery},
		{"stale", with(func(f *Facts) { f.LastSuccess = now.Add(-time.Hour) }), keepEvery},
		{"X.509 authorities that expire", with(func(f *Facts) { f.X509Until = now.Add(20 * time.Second) }), 20 * time.Second},
		{"X.509 authorities that expired, which a success can bring anew", with(func(f *Facts) { f.X509Until = now.Add(-time.Second) }), keepEvery},
		{"no X.509 authority", with(func(f *Facts) { f.X509Until = time.Time{} }), longestRest},
		{"no JWT authority", with(func(f *Facts) { f.JWTKeys = 0 }), longestRest},
		{"JWT authorities on a short leash", with(func(f *Facts) { f.MaxStaleJWT = 30 * time.Second }), 30 * time.Second},
		{"X.509 authorities on a short leash", with(func(f *Facts) { f.MaxStaleX509 = 30 * time.Second }), 30 * time.Second},
		{"confirmed by a clock that is ahead", with(func(f *Facts) { f.LastSuccess = now.Add(time.Hour) }), longestRest},
		{"nothing stored yet", Facts{}, keepEvery},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, restsUntil(now, Judge(now, test.facts), test.facts).Sub(now))
		})
	}
}

// TestRestMissesNothing: whoever looks at a standing when it is said to need it, and again a second after it was found to be another, finds what
// looking all the time finds, whenever successes come.
func TestRestMissesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that can be repeated
	within := func(d time.Duration) time.Duration {
		return time.Duration(random.Int64N(int64(d)/int64(time.Second))) * time.Second
	}
	begin := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for range 200 {
		f := Facts{
			Stored: true, LastSuccess: begin.Add(-within(10 * time.Minute)), Interval: 10*time.Second + within(5*time.Minute),
			X509Until: begin.Add(within(time.Hour)), JWTKeys: random.IntN(2), MaxStaleJWT: within(20 * time.Minute), MaxStaleX509: within(20 * time.Minute),
		}
		standing, next := Judge(begin, f), begin
		for now := begin; now.Before(begin.Add(30 * time.Minute)); now = now.Add(time.Second) {
			if random.IntN(600) == 0 {
				f.LastSuccess = now
			}
			if !next.After(now) {
				standing = Judge(now, f)
				next = restsUntil(now, standing, f)
			}
			before := Judge(now.Add(-keepEvery), f)
			require.Contains(t, []Standing{Judge(now, f), before}, standing, "%v: %+v", now.Sub(begin), f)
		}
	}
}
