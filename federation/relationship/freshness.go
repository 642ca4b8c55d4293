package relationship

import (
	"time"

	"github.com/ententehq/entente/trust/standing"
)

// StaleAfter is how many refresh intervals without success make a bundle stale, and how many a new leader waits for the
// reports of the owners.
const StaleAfter = 3

// Validity is the state of one bundle.
type Validity struct {
	// State is Pending, Fresh, Stale or Expired. It is Expired once authorities of both kinds are.
	State standing.State
	// X509Expired means that no X.509 authority counts: there is none, or each has expired, or max_stale_x509 has
	// passed.
	X509Expired bool
	// JWTExpired means that no JWT authority counts: there is none, or max_stale_jwt has passed.
	JWTExpired bool
	// Bootstrap means that an operator or an agreement brought the bundle, and that nothing has confirmed it since.
	Bootstrap bool
}

// Shown returns State, or [standing.Bootstrap] for a fresh bundle that is not confirmed.
func (v Validity) Shown() standing.State {
	if v.State == standing.Fresh && v.Bootstrap {
		return standing.Bootstrap
	}
	return v.State
}

// Facts is what the validity of a bundle depends on.
type Facts struct {
	// Stored means that there is a bundle.
	Stored bool
	// Static means that only an operator provides the bundle, so that it is never stale.
	Static bool
	// LastSuccess is when the bundle was last confirmed by its endpoint, or provided by an operator. Zero is never.
	LastSuccess time.Time
	// Bootstrap means that the bundle is as an operator or an agreement brought it, without a success since.
	Bootstrap bool
	// Interval is the bundle's refresh interval, within bounds.
	Interval time.Duration
	// X509Until is when the last of its X.509 authorities expires. It is zero if there is none.
	X509Until time.Time
	// JWTKeys counts its JWT authorities, which carry no dates.
	JWTKeys int
	// MaxStaleX509 and MaxStaleJWT are how long authorities of a kind count without success. Zero is for ever.
	MaxStaleX509, MaxStaleJWT time.Duration
}

// Judge returns the validity of a bundle at now.
func Judge(now time.Time, f Facts) Validity {
	if !f.Stored {
		return Validity{State: standing.Pending, X509Expired: true, JWTExpired: true}
	}
	age := now.Sub(f.LastSuccess)
	s := Validity{
		State:       standing.Fresh,
		Bootstrap:   f.Bootstrap && !f.Static,
		X509Expired: f.X509Until.IsZero() || now.After(f.X509Until) || f.MaxStaleX509 > 0 && age > f.MaxStaleX509,
		JWTExpired:  f.JWTKeys == 0 || f.MaxStaleJWT > 0 && age > f.MaxStaleJWT,
	}
	switch {
	case s.X509Expired && s.JWTExpired:
		s.State = standing.Expired
	case !f.Static && age > StaleAfter*f.Interval:
		s.State = standing.Stale
	}
	return s
}

// reportWithin is how long members have to report to a new leader what they have observed, which takes several reports.
// For a shorter refresh interval it is that.
const reportWithin = time.Minute

// Premature reports whether it is too early for a new leader to find a fresh bundle stale: one member's word on it may
// be there, and that of another, to which a stream confirms it, still on its way.
func Premature(was, is standing.State, leading, interval time.Duration) bool {
	return was == standing.Fresh && is == standing.Stale && leading < min(reportWithin, interval)
}

// LastKnownSuccess returns the last success by which the leader judges. reported is the latest success that a member
// reported, recorded the one in the row; both are zero if there is none. leading is when this member became the leader.
// A relationship that was fresh without a report yet has until a while after leading; one that was stale stays stale.
func LastKnownSuccess(reported, recorded, leading time.Time, was standing.State) time.Time {
	last := recorded
	if reported.After(last) {
		last = reported
	}
	if reported.IsZero() && was != standing.Stale && was != standing.Expired && leading.After(last) {
		last = leading
	}
	return last
}
