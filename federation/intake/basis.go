package intake

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

// Basis is what the decision on a bundle depends on, read from one state.
type Basis struct {
	Rel *relationship.Relationship
	Row *statev1.Relationship
	// Current is the stored bundle, or nil.
	Current  *relationship.Stored
	Revision raftstore.Revision
	// Trust verifies an https_spiffe endpoint. If nil, there is no bundle that does.
	Trust         x509bundle.Source
	TrustRevision raftstore.Revision
	// Source is where the new bundle comes from, for the history. If empty, it is the relationship's own source.
	Source string
	// Reset stores the new bundle whatever its sequence.
	Reset bool
}

// Origin names the source of the new bundle.
func (b Basis) Origin() string {
	if b.Source != "" {
		return b.Source
	}
	return b.Rel.Source()
}

func (b Basis) sameAs(o Basis) bool {
	return b.Rel.Generation == o.Rel.Generation && b.Revision == o.Revision && b.TrustRevision == o.TrustRevision
}

// BasisOf reads the basis of a relationship that is in force; [relationship.ErrEnded] means that it is not. Read
// through a transaction, all of it is a precondition of the transaction.
func (in *Intake) BasisOf(r raftstore.Reader, name string) (Basis, error) {
	row, found, err := relationship.Relationships.Get(r, name)
	if err != nil {
		return Basis{}, err
	}
	if !found || !relationship.InForce(row.Value) {
		return Basis{}, relationship.ErrEnded
	}
	b := Basis{Row: row.Value}
	if b.Rel, err = relationship.Parse(row.Value); err != nil {
		return Basis{}, fmt.Errorf("stored relationship: %w", err)
	}
	held, found, err := relationship.ForeignBundles.Get(r, name)
	if err != nil {
		return Basis{}, err
	}
	if found {
		b.Current, b.Revision = relationship.NewStored(held.Value), held.Revision
	}
	switch {
	case b.Rel.Endpoint.Profile() != endpoint.HTTPSSPIFFE:
	case b.Rel.Endpoint.SelfServing() && !found:
	case b.Rel.Endpoint.SelfServing():
		b.Trust, b.TrustRevision = b.Current, b.Revision
	case b.Rel.Serving != nil:
		b.Trust = b.Rel.Serving // the generation stands for it
	default:
		b.Trust, b.TrustRevision, err = in.ServingBundle(r, b.Rel.Endpoint.ID().TrustDomain().Name())
	}
	return b, err
}

// ServingBundle returns the bundle of a domain whose SVID an endpoint of another domain presents: a hosted domain, or a
// foreign one in force. It returns nil if there is none.
func (in *Intake) ServingBundle(r raftstore.Reader, name string) (x509bundle.Source, raftstore.Revision, error) {
	d, err := in.config.Trust.Decide(r, name)
	if err != nil {
		return nil, 0, err
	}
	switch d.Origin {
	case trust.ByHosting:
	case trust.ByRelationship:
		x509 := relationship.KindsOf(d.Relationship.Value).X509 && d.Status.X509 != standing.Expired
		if d.Status.State.Withheld() || !x509 {
			return nil, 0, nil
		}
	default: // a hub's attestation serves no other domain
		return nil, 0, nil
	}
	row, found, err := in.config.Trust.Stored(r, name, d)
	if err != nil || !found {
		return nil, 0, err
	}
	return relationship.NewStored(row.Value), row.Revision, nil
}
