package plan

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// Kind is the kind of SVIDs that an authority signs.
type Kind int

// The kinds of authority.
const (
	X509 Kind = iota + 1
	JWT
)

// Kinds are all kinds, in the order of evaluation.
var Kinds = [...]Kind{X509, JWT}

// String returns the name in metrics and in the audit log.
func (k Kind) String() string {
	switch k {
	case X509:
		return "x509"
	case JWT:
		return "jwt"
	}
	return fmt.Sprintf("kind(%d)", int(k))
}

// State is the state of an authority.
type State int

// The states. An authority passes through the first three in this order. An operator can end it sooner by the others.
const (
	Prepared State = iota + 1
	Active
	Retiring
	// Tainted is retiring by an operator action: what it signed has to be renewed at once.
	Tainted
	// Revoked is out of the bundle, as far as this cluster decides that. It stays listed until what it signed has
	// expired, so that the holders are notified.
	Revoked
)

// String returns the name in metrics and in the audit log.
func (s State) String() string {
	switch s {
	case Prepared:
		return "prepared"
	case Active:
		return "active"
	case Retiring:
		return "retiring"
	case Tainted:
		return "tainted"
	case Revoked:
		return "revoked"
	}
	return fmt.Sprintf("state(%d)", int(s))
}

// Past reports whether an authority in this state no longer signs.
func (s State) Past() bool { return s == Retiring || s == Tainted || s == Revoked }

// Distrusted reports whether everything that an authority in this state signed has to be renewed at once.
func (s State) Distrusted() bool { return s == Tainted || s == Revoked }

// Authority is the part of an authority that the rules depend on.
type Authority struct {
	ID     string
	Member string
	Kind   Kind
	State  State
	// Number orders a member's authorities of one kind. A newer one has a higher number.
	Number              uint64
	NotBefore, NotAfter time.Time
	// Ready is when what verifies it has been published for long enough.
	Ready time.Time
	// Published is the first sequence of the bundle that holds what verifies it, or 0 if unknown. PublishedAt is when
	// it was prepared.
	Published   uint64
	PublishedAt time.Time
	// Retired is when it stopped signing. It is set once it is retiring, tainted or revoked.
	Retired time.Time
	// Anchor is the anchor of an X.509 authority's chain; empty for JWT. UpstreamAnchor is true if it belongs to an
	// upstream, which signs for other members below it too, and not to the member.
	Anchor         string
	UpstreamAnchor bool
	// AnchorRevoked is true if the anchor was revoked with it.
	AnchorRevoked bool
	// Held is true if it was prepared in reserve, and Reserve is the request for a reserve that it fulfils.
	Held    bool
	Reserve uint64
	// Ahead is true if it was prepared to be published for a part of its life before it takes over. Only JWT
	// authorities are: their keys are what the bundle has, as roots are for X.509.
	Ahead bool
	// LongestSVID is the longest lifetime of an SVID that it can have signed.
	LongestSVID time.Duration
	// Rotation is the request to rotate that it fulfils, AnchorRotation the one that its anchor fulfils.
	Rotation, AnchorRotation uint64
}

// Leaves returns when an authority that no longer signs can leave the bundle: everything that it signed has expired.
func (a Authority) Leaves(grace time.Duration) time.Time {
	at := a.Retired.Add(grace + a.LongestSVID)
	if a.NotAfter.Before(at) {
		return a.NotAfter
	}
	return at
}

// renewal returns when the authority is replaced: at half of its life, or up to a tenth of the life earlier. The ID
// decides how much earlier, so that members that started together do not renew together, and the result is stable.
func (a Authority) renewal() time.Time {
	life := a.NotAfter.Sub(a.NotBefore)
	sum := sha256.Sum256([]byte(a.ID))
	early := life / 10 / (1 << 16) * time.Duration(binary.BigEndian.Uint16(sum[:]))
	return a.NotBefore.Add(life/2 - early)
}

// JWTLead returns for how long the key of a JWT authority is in the bundle before it takes over from its predecessor: a
// quarter of its life. It signs for as long, since one key is published ahead at a time.
func JWTLead(life time.Duration) time.Duration { return life / 4 }

// spare reports whether the authority is published ahead, and not prepared on the request of an operator.
func (a Authority) spare() bool { return a.State == Prepared && a.Ahead && !a.Held }

// deadline returns the last time at which the authority can sign SVIDs of full length.
func (a Authority) deadline() time.Time { return a.NotAfter.Add(-a.LongestSVID) }
