package federation

import (
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// admit checks a relationship against the state that it becomes part of. bootstrap is the bundle that comes with it,
// and stored the one that is stored. Either can be nil.
func (m *Manager) admit(r raftstore.Reader, rel *relationship.Relationship, bootstrap, stored *bundle.Bundle) error {
	hosted, err := m.config.Trust.Hosted.Hosts(r, rel.TrustDomain.Name())
	if err != nil {
		return err
	}
	if hosted {
		return status.Errorf(
			codes.FailedPrecondition,
			"%s is hosted by this cluster, and a hosted domain is never foreign; name a domain of another cluster",
			rel.TrustDomain,
		)
	}
	if err := m.admitPeer(r, rel); err != nil {
		return err
	}
	if rel.Static && bootstrap == nil && stored == nil {
		return status.Errorf(
			codes.InvalidArgument,
			"bootstrap_bundle is missing: a static relationship fetches nothing; get the bundle of %s from its "+
				"operator and give it with --bootstrap FILE",
			rel.TrustDomain,
		)
	}
	if rel.Endpoint.Profile() != endpoint.HTTPSSPIFFE {
		return nil
	}
	if rel.Endpoint.SelfServing() {
		own := bootstrap
		if own == nil {
			own = stored
		}
		switch {
		case own == nil:
			return status.Errorf(
				codes.FailedPrecondition,
				"the endpoint of %s proves itself by the bundle that it serves, and none is stored yet; "+
					"get the document from the peer's operator and give it as the bootstrap bundle (--bootstrap FILE)",
				rel.TrustDomain,
			)
		case len(own.X509Authorities()) == 0:
			return status.Errorf(
				codes.FailedPrecondition,
				"the bundle of %s holds no X.509 authority, so its endpoint cannot be verified by it; "+
					"give a bootstrap bundle that holds one (--bootstrap FILE)",
				rel.TrustDomain,
			)
		}
		return nil
	}
	if rel.Serving != nil {
		return nil
	}
	serving := rel.Endpoint.ID().TrustDomain()
	trust, _, err := m.intake.ServingBundle(r, serving.Name())
	if err != nil {
		return err
	}
	if trust == nil {
		return status.Errorf(
			codes.FailedPrecondition,
			"the endpoint of %s proves itself as %s, and the bundle of %s is not known here or its relationship is "+
				"suspended; "+
				"create a relationship with %s first, or give its bundle with --serving-bundle FILE",
			rel.TrustDomain,
			rel.Endpoint.ID(),
			serving,
			serving,
		)
	}
	return nil
}

// admitPeer checks that the peer of a relationship can be verified, by the bundle of its home domain.
func (m *Manager) admitPeer(r raftstore.Reader, rel *relationship.Relationship) error {
	if rel.Peer == nil || rel.Peer.Home == rel.TrustDomain {
		return nil
	}
	home := rel.Peer.Home.Name()
	hosted, err := m.config.Trust.Hosted.Hosts(r, home)
	if err != nil {
		return err
	}
	if hosted {
		return status.Errorf(
			codes.FailedPrecondition,
			"the peer's home trust domain %s is hosted by this cluster; name that of the other cluster",
			home,
		)
	}
	known, err := relationship.IsForeign(r, home)
	if err == nil && !known {
		err = status.Errorf(
			codes.FailedPrecondition,
			"the members of the peer prove themselves by the bundle of %s, with which there is no relationship; "+
				"create one first",
			home,
		)
	}
	return err
}

// create is the transaction of a new relationship.
func (m *Manager) create(
	tx *raftstore.Tx,
	want *statev1.Relationship,
	bootstrap *bundle.Bundle,
	operator string,
	now time.Time,
) error {
	name := want.GetTrustDomain()
	if _, found, err := relationship.Relationships.Get(tx, name); err != nil {
		return err
	} else if found {
		return status.Errorf(codes.AlreadyExists, "there is a relationship with %s already; change it with `entente "+
			"federation update %s`", name, name)
	}
	row := proto.Clone(want).(*statev1.Relationship)
	row.CreateTime = timestamppb.New(now)
	if row.GetSuspended() {
		row.Suspension = &statev1.RelationshipSuspension{Time: row.GetCreateTime(), By: operator}
	}
	relationship.New(tx, row)
	rel, err := relationship.Parse(row)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := m.admit(tx, rel, bootstrap, nil); err != nil {
		return err
	}
	return m.intake.Write(tx, intake.Basis{Rel: rel, Row: row, Source: broughtBy(operator)}, bootstrap, now)
}

// change is an operator's change of a relationship.
type change struct {
	wanted    *ententev1.Relationship
	paths     []string
	bootstrap []byte
	reset     bool
	etag      string
	// operator is the caller.
	operator string
}

// broughtBy names the source of a bundle that an operator provides.
func broughtBy(operator string) string { return "bootstrap by " + operator }

// update is the transaction of a change. If nothing changes it writes nothing.
func (m *Manager) update(tx *raftstore.Tx, c change, now time.Time) error {
	name := c.wanted.GetTrustDomain()
	row, err := relationship.Get(m.config.Trust.Sources, tx, name)
	if err != nil {
		return err
	}
	if err := relationship.CheckEtag(c.etag, row); err != nil {
		return err
	}
	next := proto.Clone(row).(*statev1.Relationship)
	relationship.Apply(next, c.paths, c.wanted)
	if len(c.bootstrap) == 0 && proto.Equal(row, next) {
		return nil
	}
	relationship.Decided(tx, next)
	rel, err := relationship.Parse(next)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	bootstrap, err := relationship.ParseBootstrap(rel, c.bootstrap)
	if err != nil {
		return err
	}
	b := intake.Basis{Rel: rel, Row: next, Source: broughtBy(c.operator), Reset: c.reset}
	held, found, err := relationship.ForeignBundles.Get(tx, name)
	if err != nil {
		return err
	}
	if found {
		b.Current = relationship.NewStored(held.Value)
	}
	current, err := b.Current.Bundle()
	if err != nil {
		return err
	}
	if err := m.admit(tx, rel, bootstrap, current); err != nil {
		return err
	}
	if bootstrap != nil && !c.reset {
		if err := relationship.Accept(current, bootstrap); err != nil {
			return status.Errorf(codes.FailedPrecondition, "the bootstrap bundle of %s is refused: %s", name, err)
		}
	}
	if found && bootstrap == nil && !slices.Equal(row.GetAuthorityKinds(), next.GetAuthorityKinds()) {
		// The part of the bundle that is relied on changes, so that followers of the table have to read it again.
		held.Value.Decided = next.GetGeneration()
		if err := relationship.ForeignBundles.Put(tx, name, held.Value); err != nil {
			return err
		}
	}
	if rel.Static && !row.GetStatic() && next.GetValidity() != nil {
		next.Validity.LastSuccessTime = timestamppb.New(now) // the operator vouches for what is stored
	}
	return m.intake.Write(tx, b, bootstrap, now)
}
