package relationship

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// The tables of relationships and of foreign bundles, keyed by the name of the foreign trust domain. A bundle has a row
// only while there is a relationship with its domain.
var (
	Relationships  = raftstore.NewTable[*statev1.Relationship]("relationships")
	ForeignBundles = raftstore.NewTable[*statev1.Bundle]("foreign_bundles")
)

// IsForeign reports whether there is a relationship with a trust domain, so that the cluster cannot host it. With a
// transaction the answer is a precondition of it.
func IsForeign(r raftstore.Reader, trustDomain string) (bool, error) {
	_, found, err := Relationships.Get(r, trustDomain)
	return found, err
}

// TrustOf returns the status of a trust domain by its row in [Relationships].
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

// StandingOf reads a stored standing. An unknown one is pending.
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

// Row returns the stored form of a standing, with the last success that is known.
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

// TrustSource returns the tables and rules of relationships and of hubs' attestations, by which package trust decides
// on foreign domains.
func TrustSource() trust.Foreign {
	return trust.Foreign{
		Relationships: Relationships, Bundles: ForeignBundles, Attestations: HubBundles,
		Status: TrustOf, Attest: AttestationOf, Usable: Relied, Attested: Attested,
	}
}
