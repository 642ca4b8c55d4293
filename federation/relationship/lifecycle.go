package relationship

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

// ParseBootstrap parses the bundle that an operator provides for a trust domain. It returns nil if there is none.
func ParseBootstrap(r *Relationship, document []byte) (*bundle.Bundle, error) {
	if len(document) == 0 {
		return nil, nil
	}
	b, _, err := bundle.Parse(r.TrustDomain, document)
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

// SetSuspended suspends or resumes a relationship.
func SetSuspended(tx *raftstore.Tx, name string, suspended bool) error {
	row, err := Get(tx, name)
	if err != nil || row.GetSuspended() == suspended {
		return err
	}
	row.Suspended = suspended
	row.Generation = max(row.GetGeneration(), uint64(tx.Revision())) + 1
	return Relationships.Put(tx, name, row)
}

// Delete deletes a relationship with its bundle and the history of it. Attestations that came through it as a hub do
// not count any more, and are garbage collected. If another hub attests the domain, toHub must confirm that it is
// trusted by that attestation from then on.
func Delete(tx *raftstore.Tx, name string, toHub bool) error {
	if _, err := Get(tx, name); err != nil {
		return err
	}
	if word, found, err := AttestationOf(tx, name); err != nil {
		return err
	} else if found && word.Hub != name && !toHub {
		return status.Errorf(codes.FailedPrecondition, "the hub %s attests %s too, and %s would be trusted by its "+
			"attestation from then on; if that is intended, add --to-hub, "+
			"else end it first with `entente federation update %s --hub-exclude "+
			"%s`", word.Hub, name, name, word.Hub, name)
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
func DeleteWithLinkedHome(tx *raftstore.Tx, row *statev1.Relationship, toHub bool) error {
	name, home := row.GetTrustDomain(), row.GetPeer().GetHomeTrustDomain()
	if err := Delete(tx, name, toHub); err != nil || row.GetAgreement() == nil || home == name {
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
	return Delete(tx, home, toHub)
}

// Get returns the row of a relationship, or a refusal for operators if there is none.
func Get(r raftstore.Reader, name string) (*statev1.Relationship, error) {
	row, found, err := Relationships.Get(r, name)
	if err != nil {
		return nil, fmt.Errorf("read the relationship with %s: %w", Quote(name), err)
	}
	if !found {
		if word, brought, err := AttestationOf(r, name); err == nil && brought {
			return nil, status.Errorf(
				codes.FailedPrecondition,
				"%s is trusted by an attestation of the hub %s and has no relationship of its own; `entente "+
					"federation update %s --hub-exclude %s` "+
					"ends that, and `entente federation create %s` creates one",
				name,
				word.Hub,
				word.Hub,
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
	return row.Value, nil
}
