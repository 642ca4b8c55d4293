package relationship

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// ParseBootstrap parses the bundle that an operator provides for a trust domain, also one in PEM. It returns nil if
// there is none.
func ParseBootstrap(r *Relationship, document []byte) (*bundle.Bundle, error) {
	if len(document) == 0 {
		return nil, nil
	}
	b, _, err := bundle.ParseFile(r.TrustDomain, document)
	if err != nil {
		return nil, status.Errorf(
			codes.InvalidArgument,
			"bootstrap_bundle of %s: %s; get the document from the peer's operator again",
			r.TrustDomain,
			Clip(err.Error()),
		)
	}
	if err := Accept(nil, b); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "bootstrap_bundle of %s: %v", r.TrustDomain, err)
	}
	return b, nil
}

// Suspend suspends a relationship in the name of a caller. One that is suspended already stays as it is.
func Suspend(sources trust.Sources, tx *raftstore.Tx, name, by string, now time.Time) error {
	return setSuspended(sources, tx, name, &statev1.RelationshipSuspension{Time: timestamppb.New(now), By: by})
}

// Resume ends the suspension of a relationship.
func Resume(sources trust.Sources, tx *raftstore.Tx, name string) error {
	return setSuspended(sources, tx, name, nil)
}

func setSuspended(
	sources trust.Sources, tx *raftstore.Tx, name string, suspension *statev1.RelationshipSuspension,
) error {
	row, err := Get(sources, tx, name)
	if err != nil || row.GetSuspended() == (suspension != nil) {
		return err
	}
	row.Suspended, row.Suspension = suspension != nil, suspension
	Decided(tx, row)
	return Relationships.Put(tx, name, row)
}

// Delete deletes a relationship with its bundle and the history of it. Attestations that came through it as a hub do
// not count any more, and are garbage collected. If another hub attests the domain, toHub must confirm that it is
// trusted by that attestation from then on.
func Delete(sources trust.Sources, tx *raftstore.Tx, name string, toHub bool) error {
	if _, err := Get(sources, tx, name); err != nil {
		return err
	}
	next, err := sources.DecideWithoutRelationship(tx, name)
	if err != nil {
		return err
	}
	if hub := next.Attestation.Hub; next.Origin == trust.ByAttestation && hub != name && !toHub {
		return status.Errorf(codes.FailedPrecondition, "the hub %s attests %s too, and %s would be trusted by its "+
			"attestation from then on; if that is intended, add --to-hub, "+
			"else end it first with `entente federation update %s --hub-exclude "+
			"%s`", hub, name, name, hub, name)
	}
	if err := ForeignHistory.Delete(tx, name); err != nil {
		return err
	}
	if err := ForeignBundles.Delete(tx, name); err != nil {
		return err
	}
	return Relationships.Delete(tx, name)
}

// DeleteWithLinkedHome deletes a relationship, and its linked home relationship if nothing else needs that.
func DeleteWithLinkedHome(
	sources trust.Sources, tx *raftstore.Tx, row *statev1.Relationship, toHub bool,
) error {
	name, home := row.GetTrustDomain(), row.GetPeer().GetHomeTrustDomain()
	if err := Delete(sources, tx, name, toHub); err != nil || row.GetAgreement() == nil || home == name {
		return err
	}
	if needed, err := ReassignLinkedHome(tx, name, home, row.GetAgreement().GetId()); err != nil || needed {
		return err
	}
	linked, found, err := Relationships.Get(tx, home)
	if a := linked.Value.GetAgreement(); err != nil || !found || !a.GetLinkedHome() ||
		a.GetId() != row.GetAgreement().GetId() {
		return err
	}
	return Delete(sources, tx, home, toHub)
}

// Get returns the row of a relationship, or a refusal for operators if there is none.
func Get(sources trust.Sources, r raftstore.Reader, name string) (*statev1.Relationship, error) {
	d, err := sources.Decide(r, name)
	switch {
	case err != nil:
		return nil, err
	case d.Origin == trust.ByRelationship:
		return d.Relationship.Value, nil
	case d.Origin == trust.ByAttestation:
		return nil, status.Errorf(
			codes.FailedPrecondition,
			"%s is trusted by an attestation of the hub %s and has no relationship of its own; `entente "+
				"federation update %s --hub-exclude %s` "+
				"ends that, and `entente federation create %s` creates one",
			name,
			d.Attestation.Hub,
			d.Attestation.Hub,
			name,
			name,
		)
	}
	return nil, status.Errorf(
		codes.NotFound,
		"there is no relationship with %s; `entente federation list` shows all",
		Quote(name),
	)
}

// New sets the generations of a relationship that does not exist yet.
func New(tx *raftstore.Tx, row *statev1.Relationship) {
	row.Generation = raftstore.NextGeneration(tx, 0)
	row.SettingsGeneration = row.GetGeneration()
}

// Decided moves both generations of a relationship after an operator's decision: no fetch that began before it can
// store its result, and no client can overwrite it unseen.
func Decided(tx *raftstore.Tx, row *statev1.Relationship) {
	restartFetches(tx, row)
	row.SettingsGeneration = raftstore.NextGeneration(tx, row.GetSettingsGeneration())
}

// restartFetches moves the generation for fetches alone.
func restartFetches(tx *raftstore.Tx, row *statev1.Relationship) {
	row.Generation = raftstore.NextGeneration(tx, row.GetGeneration())
}

// SameSettings reports whether two rows are equal in what clients set, this side's consent and the addresses that
// follow an announcement included.
func SameSettings(a, b *statev1.Relationship) bool { return proto.Equal(clientPart(a), clientPart(b)) }

// clientPart returns a copy without what only the server sets.
func clientPart(row *statev1.Relationship) *statev1.Relationship {
	s := proto.CloneOf(row)
	s.Generation, s.SettingsGeneration, s.Validity, s.HubValidity, s.Alarms = 0, 0, nil, nil, nil
	if a := row.GetAgreement(); a != nil {
		s.Agreement = &statev1.RelationshipAgreement{
			ApproveTime: a.GetApproveTime(), Approver: a.GetApprover(),
		}
	}
	return s
}

// Etag returns the etag of a relationship.
func Etag(row *statev1.Relationship) string { return etag.Of(row.GetSettingsGeneration()) }

// CheckEtag returns an error if a relationship has another etag than a request.
func CheckEtag(requested string, row *statev1.Relationship) error {
	return etag.Check(requested, "the relationship with "+row.GetTrustDomain(), Etag(row))
}
