package federation

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/federation/relationship"
)

func TestNextCheck(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	good := relationship.Facts{
		Stored:      true,
		LastSuccess: now,
		Interval:    5 * time.Minute,
		X509Until:   now.Add(time.Hour),
		JWTKeys:     1,
		MaxStaleJWT: relationship.DefaultMaxStaleJWT,
	}
	with := func(change func(*relationship.Facts)) relationship.Facts { f := good; change(&f); return f }
	for _, test := range []struct {
		name  string
		facts relationship.Facts
		want  time.Duration
	}{
		{"fresh", good, longestRest},
		{"stale in ten seconds",
			with(func(f *relationship.Facts) { f.LastSuccess = now.Add(-15*time.Minute + 10*time.Second) }),
			10 * time.Second},
		{"stale after this very moment",
			with(func(f *relationship.Facts) { f.LastSuccess = now.Add(-15 * time.Minute) }), judgeEvery},
		{"stale", with(func(f *relationship.Facts) { f.LastSuccess = now.Add(-time.Hour) }), judgeEvery},
		{"X.509 authorities that expire", with(func(f *relationship.Facts) { f.X509Until = now.Add(20 * time.Second) }),
			20 * time.Second},
		{"X.509 authorities that expired, which a success can replace",
			with(func(f *relationship.Facts) { f.X509Until = now.Add(-time.Second) }), judgeEvery},
		{"no X.509 authority", with(func(f *relationship.Facts) { f.X509Until = time.Time{} }), longestRest},
		{"no JWT authority", with(func(f *relationship.Facts) { f.JWTKeys = 0 }), longestRest},
		{"JWT authorities with a short limit", with(func(f *relationship.Facts) { f.MaxStaleJWT = 30 * time.Second }),
			30 * time.Second},
		{"X.509 authorities with a short limit",
			with(func(f *relationship.Facts) { f.MaxStaleX509 = 30 * time.Second }),
			30 * time.Second},
		{"confirmed by a clock that is ahead", with(func(f *relationship.Facts) { f.LastSuccess = now.Add(time.Hour) }),
			longestRest},
		{"nothing stored yet", relationship.Facts{}, judgeEvery},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, restsUntil(now, relationship.Judge(now, test.facts), test.facts).Sub(now))
		})
	}
}

// TestNextCheckMissesNothing tests that checks at the computed times find every change that continuous checks find,
// whenever successes arrive.
func TestNextCheckMissesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that can be repeated
	within := func(d time.Duration) time.Duration {
		return time.Duration(random.Int64N(int64(d)/int64(time.Second))) * time.Second
	}
	begin := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for range 200 {
		f := relationship.Facts{
			Stored: true, LastSuccess: begin.Add(-within(10 * time.Minute)),
			Interval:  10*time.Second + within(5*time.Minute),
			X509Until: begin.Add(within(time.Hour)), JWTKeys: random.IntN(2), MaxStaleJWT: within(20 * time.Minute),
			MaxStaleX509: within(20 * time.Minute),
		}
		validity, next := relationship.Judge(begin, f), begin
		for now := begin; now.Before(begin.Add(30 * time.Minute)); now = now.Add(time.Second) {
			if random.IntN(600) == 0 {
				f.LastSuccess = now
			}
			if !next.After(now) {
				validity = relationship.Judge(now, f)
				next = restsUntil(now, validity, f)
			}
			before := relationship.Judge(now.Add(-judgeEvery), f)
			require.Contains(t, []relationship.Validity{relationship.Judge(now, f), before}, validity, "%v: %+v",
				now.Sub(begin), f)
		}
	}
}
