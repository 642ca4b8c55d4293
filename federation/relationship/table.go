package relationship

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

// The tables of relationships and of foreign bundles, keyed by the name of the foreign trust domain. A bundle has a row
// only while there is a relationship with its domain.
var (
	Relationships  = raftstore.NewTable[*statev1.Relationship]("relationships", raftstore.RecordsNow)
	ForeignBundles = raftstore.NewTable[*statev1.Bundle]("foreign_bundles", raftstore.RecordsNow)
)

// IsForeign reports whether there is a relationship with a trust domain, so that the cluster cannot host it. With a
// transaction the answer is a precondition of it.
func IsForeign(r raftstore.Reader, trustDomain string) (bool, error) {
	_, found, err := Relationships.Get(r, trustDomain)
	return found, err
}

// TrustOf returns the status of a trust domain by its row in [Relationships].
func TrustOf(row *statev1.Relationship) standing.Status {
	if row.GetSuspended() {
		return standing.StatusOf(standing.Suspended)
	}
	if !InForce(row) {
		return standing.StatusOf(standing.AwaitingConsent)
	}
	s := ValidityOf(row.GetValidity())
	t := standing.StatusOf(s.Shown())
	kinds := KindsOf(row)
	if (s.X509Expired || !kinds.X509) && s.State.Verifiable() {
		t.X509 = standing.Expired
	}
	if (s.JWTExpired || !kinds.JWT) && s.State.Verifiable() {
		t.JWT = standing.Expired
	}
	return t
}

// ValidityOf reads a stored validity. An unknown one is pending.
func ValidityOf(row *statev1.RelationshipValidity) Validity {
	s := Validity{
		State:       standing.FromFreshness(ententev1.Freshness(row.GetFreshness())),
		X509Expired: true,
		JWTExpired:  true,
	}
	if s.State == standing.Pending {
		return s
	}
	s.X509Expired, s.JWTExpired, s.Bootstrap = row.GetX509Expired(), row.GetJwtExpired(), row.GetBootstrap()
	return s
}

// Row returns the stored form of a validity, with the last success that is known.
func (s Validity) Row(lastSuccess time.Time) *statev1.RelationshipValidity {
	out := &statev1.RelationshipValidity{
		Freshness:   int32(s.State.Freshness()),
		X509Expired: s.X509Expired,
		JwtExpired:  s.JWTExpired,
		Bootstrap:   s.Bootstrap,
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
		Status: TrustOf, Attest: attestationOf, Usable: Relied, Attested: Attested,
	}
}
