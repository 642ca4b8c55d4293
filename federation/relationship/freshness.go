package relationship

import (
	"time"

	"github.com/ententehq/entente/trust"
)

// StaleAfter is how many refresh intervals may pass without success before a bundle counts as stale, and for how many a
// new leader waits to hear from the owners before it takes silence for failure.
const StaleAfter = 3

// Standing is what the rule on freshness found of one bundle.
type Standing struct {
	// State is Pending, Fresh, Stale or Expired. It is Expired once authorities of both kinds are.
	State trust.State
	// X509Expired says that no X.509 authority can be relied on: there is none, or each has expired, or max_stale_x509
	// has passed.
	X509Expired bool
	// JWTExpired says that no JWT authority can be relied on: there is none, or max_stale_jwt has passed.
	JWTExpired bool
}

// Facts is what the standing of a bundle depends on.
type Facts struct {
	// Stored says whether there is a bundle.
	Stored bool
	// LastSuccess is when the bundle was last confirmed by its endpoint, or put in by an operator. Zero: never.
	LastSuccess time.Time
	// Interval is the bundle's refresh interval, within bounds.
	Interval time.Duration
	// X509Until is when the last of its X.509 authorities expires. Zero: it has none.
	X509Until time.Time
	// JWTKeys counts its JWT authorities, which carry no dates.
	JWTKeys int
	// MaxStaleX509 and MaxStaleJWT say after how long without success authorities of a kind count as expired. Zero:
	// never.
	MaxStaleX509, MaxStaleJWT time.Duration
}

// Judge says how a bundle stands at now.
func Judge(now time.Time, f Facts) Standing {
	if !f.Stored {
		return Standing{State: trust.Pending, X509Expired: true, JWTExpired: true}
	}
	age := now.Sub(f.LastSuccess)
	s := Standing{
		State:       trust.Fresh,
		X509Expired: f.X509Until.IsZero() || now.After(f.X509Until) || f.MaxStaleX509 > 0 && age > f.MaxStaleX509,
		JWTExpired:  f.JWTKeys == 0 || f.MaxStaleJWT > 0 && age > f.MaxStaleJWT,
	}
	switch {
	case s.X509Expired && s.JWTExpired:
		s.State = trust.Expired
	case age > StaleAfter*f.Interval:
		s.State = trust.Stale
	}
	return s
}

// tellWithin is how long members are given to tell a new leader what they have seen, which they do in parts; less where
// a bundle is fetched more often.
const tellWithin = time.Minute

// Premature reports whether it is too early for a new leader to find a fresh bundle stale: one member's word on it may
// be there, and that of another, to which a stream confirms it, still on its way.
func Premature(was, is trust.State, leading, interval time.Duration) bool {
	return was == trust.Fresh && is == trust.Stale && leading < min(tellWithin, interval)
}

// LastKnownSuccess says from when the leader counts. reported is the latest success that a member told it of, recorded
// the one in the relationship's row, both zero if there is none; leading is since when this member leads. A
// relationship that was in good standing and of which nothing was heard yet is given the time to be reported; one that
// was stale stays so.
func LastKnownSuccess(reported, recorded, leading time.Time, was trust.State) time.Time {
	last := recorded
	if reported.After(last) {
		last = reported
	}
	if reported.IsZero() && was != trust.Stale && was != trust.Expired && leading.After(last) {
		last = leading
	}
	return last
}
