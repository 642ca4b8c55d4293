package relationship

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// The tables of this room. Both are keyed by the name of the foreign trust domain; a bundle has a row only while there
// is a relationship with its domain.
var (
	Relationships  = raftstore.NewTable[*statev1.Relationship]("relationships")
	ForeignBundles = raftstore.NewTable[*statev1.Bundle]("foreign_bundles")
)

// IsForeign reports whether there is a relationship with a trust domain, so that it cannot become a hosted one. Called
// with a transaction it makes the answer a precondition of it.
func IsForeign(r raftstore.Reader, trustDomain string) (bool, error) {
	_, found, err := Relationships.Get(r, trustDomain)
	return found, err
}

// TrustOf says the same of one row of [Relationships], for those who follow the table.
func TrustOf(row *statev1.Relationship) trust.Status {
	if row.GetSuspended() {
		return trust.StatusOf(trust.Suspended)
	}
	if !InForce(row) {
		return trust.StatusOf(trust.Unagreed)
	}
	s := StandingOf(row.GetStanding())
	t := trust.StatusOf(s.State)
	kinds := KindsOf(row)
	if (s.X509Expired || !kinds.X509) && s.State.Verifiable() {
		t.X509 = trust.Expired
	}
	if (s.JWTExpired || !kinds.JWT) && s.State.Verifiable() {
		t.JWT = trust.Expired
	}
	return t
}

// StandingOf reads a stored standing. What it does not know is the least that can be relied on.
func StandingOf(row *statev1.RelationshipStanding) Standing {
	s := Standing{
		State:       trust.FromFreshness(ententev1.Freshness(row.GetFreshness())),
		X509Expired: true,
		JWTExpired:  true,
	}
	if s.State == trust.Pending {
		return s
	}
	s.X509Expired, s.JWTExpired = row.GetX509Expired(), row.GetJwtExpired()
	return s
}

// Row is the stored form of a standing, with the last success that was known then.
func (s Standing) Row(lastSuccess time.Time) *statev1.RelationshipStanding {
	out := &statev1.RelationshipStanding{
		Freshness:   int32(s.State.Freshness()),
		X509Expired: s.X509Expired,
		JwtExpired:  s.JWTExpired,
	}
	if !lastSuccess.IsZero() {
		out.LastSuccessTime = timestamppb.New(lastSuccess)
	}
	return out
}
