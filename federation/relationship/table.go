package relationship

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// The tables of this room. Both are keyed by the name of the foreign trust domain; a bundle has a row only while there is a
// relationship with its domain.
var (
	Relationships  = raftstore.NewTable[*statev1.Relationship]("relationships")
	ForeignBundles = raftstore.NewTable[*statev1.Bundle]("foreign_bundles")
)

// IsForeign reports whether there is a relationship with a trust domain, so that it cannot become a hosted one. Called with a
// transaction it makes the answer a precondition of it.
func IsForeign(r raftstore.Reader, trustDomain string) (bool, error) {
	_, found, err := Relationships.Get(r, trustDomain)
	return found, err
}

// Trust is what a foreign trust domain is to this cluster, as its replicated state has it.
type Trust struct {
	// State is that of the bundle as a whole: it expires when the authorities of both kinds have.
	State State
	// X509 and JWT are those of X.509- and JWT-SVIDs: as State, or Expired where only authorities of the other kind can be relied on.
	X509, JWT State
}

// TrustState says what a trust domain is to this cluster: what an instance in it, or a certificate from it, is worth. A
// domain without a relationship is what [HubWord] makes of it. Of a hosted domain nothing is asked here, for nothing foreign decides over it.
func TrustState(r raftstore.Reader, trustDomain string) (Trust, error) {
	row, found, err := Relationships.Get(r, trustDomain)
	if err != nil {
		return Trust{}, fmt.Errorf("read the relationship with %s: %w", trustDomain, err)
	}
	if !found {
		word, _, err := AttestationOf(r, trustDomain)
		return word.Trust, err
	}
	return TrustOf(row.Value), nil
}

// TrustOf says the same of one row of [Relationships], for those who follow the table.
func TrustOf(row *statev1.Relationship) Trust {
	if row.GetSuspended() {
		return Trust{State: Suspended, X509: Suspended, JWT: Suspended}
	}
	if !InForce(row) {
		return Trust{State: Unagreed, X509: Unagreed, JWT: Unagreed}
	}
	s := StandingOf(row.GetStanding())
	t := Trust{State: s.State, X509: s.State, JWT: s.State}
	kinds := KindsOf(row)
	if (s.X509Expired || !kinds.X509) && s.State.Reliable() {
		t.X509 = Expired
	}
	if (s.JWTExpired || !kinds.JWT) && s.State.Reliable() {
		t.JWT = Expired
	}
	return t
}

// StandingOf reads a stored standing. What it does not know is the least that can be relied on.
func StandingOf(row *statev1.RelationshipStanding) Standing {
	s := Standing{State: Pending, X509Expired: true, JWTExpired: true}
	switch ententev1.Freshness(row.GetFreshness()) {
	case ententev1.Freshness_FRESHNESS_FRESH:
		s.State = Fresh
	case ententev1.Freshness_FRESHNESS_STALE:
		s.State = Stale
	case ententev1.Freshness_FRESHNESS_EXPIRED:
		s.State = Expired
	default:
		return s
	}
	s.X509Expired, s.JWTExpired = row.GetX509Expired(), row.GetJwtExpired()
	return s
}

// Row is the stored form of a standing, with the last success that was known then.
func (s Standing) Row(lastSuccess time.Time) *statev1.RelationshipStanding {
	out := &statev1.RelationshipStanding{Freshness: int32(s.State.Freshness()), X509Expired: s.X509Expired, JwtExpired: s.JWTExpired}
	if !lastSuccess.IsZero() {
		out.LastSuccessTime = timestamppb.New(lastSuccess)
	}
	return out
}

// Freshness is the API's word for a state: unspecified where there is no bundle, or nothing is said of it.
func (s State) Freshness() ententev1.Freshness {
	switch s {
	case Fresh:
		return ententev1.Freshness_FRESHNESS_FRESH
	case Stale:
		return ententev1.Freshness_FRESHNESS_STALE
	case Expired:
		return ententev1.Freshness_FRESHNESS_EXPIRED
	default:
		return ententev1.Freshness_FRESHNESS_UNSPECIFIED
	}
}
