package plan

import (
	"fmt"
	"time"
)

// HintsBeforeUse is the number of refresh hints for which a key is in the bundle before it signs. SPIFFE Federation
// recommends three to five.
const HintsBeforeUse = 3

// Defaults of the configuration.
const (
	DefaultCATTL       = 24 * time.Hour
	DefaultX509SVIDTTL = time.Hour
	DefaultJWTSVIDTTL  = 5 * time.Minute
	DefaultRefreshHint = 5 * time.Minute
	// DefaultMinRefresh is the shortest refresh hint that a domain can have.
	DefaultMinRefresh = 10 * time.Second
	// DefaultPeerMinRefresh is the interval below which SPIRE does not poll.
	DefaultPeerMinRefresh = 15 * time.Second
	// DefaultSigningGrace is the time for which a member without contact to the leader still signs.
	DefaultSigningGrace = time.Hour
	// DefaultRootTTL is the lifetime of a self-signed anchor. Its key is on the disk of a member: a stolen one is of
	// use for at most that long.
	DefaultRootTTL = 90 * 24 * time.Hour
	// DefaultJWTKeyTTL is the lifetime of a JWT authority. Its key is for JWT-SVIDs what a root is for X509-SVIDs: it
	// is in the bundle, and on the disk of a member.
	DefaultJWTKeyTTL = DefaultRootTTL
)

// Bounds of the settings.
const (
	// RootLives is the lifetime of a self-signed anchor as a multiple of that of a signing certificate, at least.
	RootLives = 4

	// maxRefreshHint bounds refresh hints: a bundle that is fetched less than once a day does not help in a rotation.
	maxRefreshHint = 24 * time.Hour
	// MinTTL is the shortest lifetime of what is signed. Certificates carry whole seconds, and a shorter life leaves no
	// time for renewal. Clocks that differ need longer lifetimes; the operator chooses those.
	MinTTL = 5 * time.Second
	// MaxCATTL is the longest lifetime of a signing certificate: a key that lies on a disk for longer should be an
	// anchor.
	MaxCATTL = 90 * 24 * time.Hour
)

// Settings are the settings of a hosted domain on which the life of its authorities depends.
type Settings struct {
	RefreshHint time.Duration
	// PeerMinRefresh is the interval below which the slowest reader of the bundle does not poll, whatever the hint.
	PeerMinRefresh time.Duration
	X509SVIDTTL    time.Duration
	JWTSVIDTTL     time.Duration
	CATTL          time.Duration
	// EarlierHint is a longer refresh hint that was replaced. Readers may poll at it until EarlierHintUntil.
	EarlierHint      time.Duration
	EarlierHintUntil time.Time
}

// Check returns an error if the settings are invalid. minRefresh is the cluster's shortest refresh hint.
func (s Settings) Check(minRefresh time.Duration) error {
	switch {
	case s.RefreshHint < minRefresh || s.RefreshHint > maxRefreshHint:
		return fmt.Errorf("refresh_hint is %v; it has to be between %v and %v", s.RefreshHint, minRefresh,
			maxRefreshHint)
	case s.RefreshHint%time.Second != 0:
		return fmt.Errorf("refresh_hint is %v; bundles carry whole seconds", s.RefreshHint)
	case s.PeerMinRefresh < 0 || s.PeerMinRefresh > maxRefreshHint:
		return fmt.Errorf("peer_min_refresh is %v; it has to be between 0 and %v", s.PeerMinRefresh, maxRefreshHint)
	case s.CATTL < MinTTL || s.CATTL > MaxCATTL:
		return fmt.Errorf("ca_ttl is %v; it has to be between %v and %v", s.CATTL, MinTTL, MaxCATTL)
	case s.X509SVIDTTL < MinTTL:
		return fmt.Errorf("x509_svid_ttl is %v; it has to be %v at least", s.X509SVIDTTL, MinTTL)
	case s.JWTSVIDTTL < MinTTL:
		return fmt.Errorf("jwt_svid_ttl is %v; it has to be %v at least", s.JWTSVIDTTL, MinTTL)
	case s.CATTL%time.Second != 0 || s.X509SVIDTTL%time.Second != 0 || s.JWTSVIDTTL%time.Second != 0:
		return fmt.Errorf("lifetimes have to be whole seconds, since certificates and tokens carry no fractions")
	}
	longest := max(s.X509SVIDTTL, s.JWTSVIDTTL)
	room, need := s.CATTL/2-longest, HintsBeforeUse*s.slowest(s.RefreshHint)
	if room < 0 {
		return fmt.Errorf("SVIDs live for %v at most, for which ca_ttl (%v) is too short: "+
			"raise ca_ttl to %v at least, or lower the SVID lifetime", longest, s.CATTL, 2*(longest+need))
	}
	if room < need {
		slowest, value := "refresh_hint", s.RefreshHint
		if s.PeerMinRefresh > value {
			slowest, value = "peer_min_refresh", s.PeerMinRefresh
		}
		return fmt.Errorf("a new authority has to be known for %v (%d times %s) before it signs, "+
			"but half of ca_ttl less the longest SVID lifetime is %v; "+
			"raise ca_ttl (%v), or lower %s (%v) or the SVID lifetime (%v)",
			need, HintsBeforeUse, slowest, room, s.CATTL, slowest, value, longest)
	}
	return nil
}

// SVIDTTL returns the longest lifetime of what an authority of the kind signs.
func (s Settings) SVIDTTL(k Kind) time.Duration {
	if k == JWT {
		return s.JWTSVIDTTL
	}
	return s.X509SVIDTTL
}

// Dissemination returns the time that something published at now needs to reach every reader.
func (s Settings) Dissemination(now time.Time) time.Duration {
	hint := s.RefreshHint
	if s.EarlierHint > hint && now.Before(s.EarlierHintUntil) {
		hint = s.EarlierHint
	}
	return HintsBeforeUse * s.slowest(hint)
}

// slowest returns the interval at which the slowest reader polls under a hint.
func (s Settings) slowest(hint time.Duration) time.Duration { return max(hint, s.PeerMinRefresh) }

// WithHint returns the settings with a refresh hint that changes at now. A longer hint before it is kept as EarlierHint
// as long as readers may poll at it.
func (s Settings) WithHint(hint time.Duration, now time.Time) Settings {
	if hint < s.RefreshHint {
		longest := s.RefreshHint
		if s.EarlierHint > longest && now.Before(s.EarlierHintUntil) {
			longest = s.EarlierHint
		}
		s.EarlierHint, s.EarlierHintUntil = longest, now.Add(HintsBeforeUse*longest)
	}
	s.RefreshHint = hint
	return s
}
