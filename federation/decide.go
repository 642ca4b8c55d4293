package federation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/raftstore"
)

// updatable are the fields that UpdateRelationship takes, by their names in a field mask.
var updatable = map[string]func(to *statev1.Relationship, from *ententev1.Relationship){
	"url":     func(to *statev1.Relationship, from *ententev1.Relationship) { to.Url = from.GetUrl() },
	"profile": func(to *statev1.Relationship, from *ententev1.Relationship) { to.Profile = int32(from.GetProfile()) },
	"endpoint_spiffe_id": func(to *statev1.Relationship, from *ententev1.Relationship) {
		to.EndpointSpiffeId = from.GetEndpointSpiffeId()
	},
	"fallback_urls": func(to *statev1.Relationship, from *ententev1.Relationship) {
		to.FallbackUrls = slices.Clone(from.GetFallbackUrls())
	},
	"serving_bundle": func(to *statev1.Relationship, from *ententev1.Relationship) {
		to.ServingBundle = from.GetServingBundle()
	},
	"authority_kinds": func(to *statev1.Relationship, from *ententev1.Relationship) {
		to.AuthorityKinds = nil
		for _, kind := range from.GetAuthorityKinds() {
			to.AuthorityKinds = append(to.AuthorityKinds, int32(kind))
		}
	},
	"max_document_bytes": func(to *statev1.Relationship, from *ententev1.Relationship) {
		to.MaxDocumentBytes = from.GetMaxDocumentBytes()
	},
	"fetch_timeout": func(to *statev1.Relationship, from *ententev1.Relationship) {
		to.FetchTimeout = clone(from.GetFetchTimeout())
	},
	"web_roots": func(to *statev1.Relationship, from *ententev1.Relationship) { to.WebRoots = from.GetWebRoots() },
	"max_stale_jwt": func(to *statev1.Relationship, from *ententev1.Relationship) {
		to.MaxStaleJwt = clone(from.GetMaxStaleJwt())
	},
	"peer": func(to *statev1.Relationship, from *ententev1.Relationship) { to.Peer = peerRow(from.GetPeer()) },
	"peer.addresses": func(to *statev1.Relationship, from *ententev1.Relationship) {
		if to.Peer == nil && from.GetPeer() != nil {
			to.Peer = &statev1.RelationshipPeer{} // which is refused, for it names no peer
		}
		if to.Peer != nil {
			to.Peer.Addresses = from.GetPeer().GetAddresses()
		}
	},
	"vouch": func(to *statev1.Relationship, from *ententev1.Relationship) { to.Vouch = from.GetVouch() },
	"hub": func(to *statev1.Relationship, from *ententev1.Relationship) {
		if to.Hub = hubRow(from.GetHub()); to.Hub == nil {
			to.HubStanding = nil
		}
	},
	"hub.take": func(to *statev1.Relationship, from *ententev1.Relationship) {
		hubOf(to, from).Take = slices.Clone(from.GetHub().GetTake())
	},
	"hub.except": func(to *statev1.Relationship, from *ententev1.Relationship) {
		hubOf(to, from).Except = slices.Clone(from.GetHub().GetExcept())
	},
	"hub.url": func(to *statev1.Relationship, from *ententev1.Relationship) {
		hubOf(to, from).Url = from.GetHub().GetUrl()
	},
	"max_stale_x509": func(to *statev1.Relationship, from *ententev1.Relationship) {
		to.MaxStaleX509 = clone(from.GetMaxStaleX509())
	},
}

// hubOf is the hub of a relationship, to be changed in parts. Where there is none and none is asked for it belongs to nothing.
func hubOf(to *statev1.Relationship, from *ententev1.Relationship) *statev1.RelationshipHub {
	switch {
	case to.GetHub() == nil && from.GetHub() == nil:
		return &statev1.RelationshipHub{}
	case to.GetHub() == nil:
		to.Hub = &statev1.RelationshipHub{} // which is refused unless something is taken
	}
	return to.GetHub()
}

func clone(d *durationpb.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return proto.Clone(d).(*durationpb.Duration)
}

// asked is the row that a request for a new relationship describes, as yet without what the server sets.
func asked(in *ententev1.Relationship) (*statev1.Relationship, error) {
	row := &statev1.Relationship{TrustDomain: in.GetTrustDomain()}
	for _, take := range updatable {
		take(row, in)
	}
	switch in.GetState() {
	case ententev1.RelationshipState_RELATIONSHIP_STATE_UNSPECIFIED, ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE:
	case ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED:
		row.Suspended = true
	default:
		return nil, status.Errorf(codes.InvalidArgument, "state %d is not known; leave it out, or say active or suspended", in.GetState())
	}
	return row, nil
}

// masked checks the names in a field mask.
func masked(paths []string) error {
	for _, path := range paths {
		if updatable[path] == nil {
			names := make([]string, 0, len(updatable))
			for name := range updatable {
				names = append(names, name)
			}
			slices.Sort(names)
			return status.Errorf(codes.InvalidArgument, "update_mask names %s, which cannot be updated; these can: %s", quote(path), strings.Join(names, ", "))
		}
	}
	return nil
}

// parseBootstrap reads the bundle that an operator brings for a trust domain; nil if there is none.
func parseBootstrap(r *Relationship, document []byte) (*bundle.Bundle, error) {
	if len(document) == 0 {
		return nil, nil
	}
	b, _, err := bundle.Parse(r.TrustDomain, document)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "bootstrap_bundle of %s: %s; get the document from the peer's operator anew", r.TrustDomain, clip(err.Error()))
	}
	if err := Accept(nil, b); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "bootstrap_bundle of %s: %v", r.TrustDomain, err)
	}
	return b, nil
}

// admit checks a relationship against the state that it is to become part of. bootstrap is the bundle that comes with it, stored the one
// that is there; either can be nil.
func (m *Manager) admit(r raftstore.Reader, rel *Relationship, bootstrap, stored *bundle.Bundle) error {
	hosted, err := m.config.IsHosted(r, rel.TrustDomain.Name())
	if err != nil {
		return err
	}
	if hosted {
		return status.Errorf(codes.FailedPrecondition, "%s is hosted by this cluster, and a hosted domain is never foreign; name a domain of another cluster", rel.TrustDomain)
	}
	if err := m.admitPeer(r, rel); err != nil {
		return err
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
			return status.Errorf(codes.FailedPrecondition, "the endpoint of %s proves itself by the bundle that it serves, and none is stored yet; "+
				"get the document from the peer's operator and give it as the bootstrap bundle (--bootstrap FILE)", rel.TrustDomain)
		case len(own.X509Authorities()) == 0:
			return status.Errorf(codes.FailedPrecondition, "the bundle of %s holds no X.509 authority, so its endpoint cannot be verified by it; "+
				"give a bootstrap bundle that holds one (--bootstrap FILE)", rel.TrustDomain)
		}
		return nil
	}
	if rel.Serving != nil {
		return nil
	}
	serving := rel.Endpoint.ID().TrustDomain()
	trust, _, err := m.servingBundle(r, serving.Name())
	if err != nil {
		return err
	}
	if trust == nil {
		return status.Errorf(codes.FailedPrecondition, "the endpoint of %s proves itself as %s, and the bundle of %s is not known here or its relationship is suspended; "+
			"create a relationship with %s first, or give its bundle with --serving-bundle FILE", rel.TrustDomain, rel.Endpoint.ID(), serving, serving)
	}
	return nil
}

// admitPeer checks that the peer of a relationship can be verified at all: by the bundle of its home domain.
func (m *Manager) admitPeer(r raftstore.Reader, rel *Relationship) error {
	if rel.Peer == nil || rel.Peer.Home == rel.TrustDomain {
		return nil
	}
	home := rel.Peer.Home.Name()
	hosted, err := m.config.IsHosted(r, home)
	if err != nil {
		return err
	}
	if hosted {
		return status.Errorf(codes.FailedPrecondition, "the peer's home trust domain %s is hosted by this cluster; name that of the other cluster", home)
	}
	known, err := IsForeign(r, home)
	if err == nil && !known {
		err = status.Errorf(codes.FailedPrecondition, "the members of the peer prove themselves by the bundle of %s, with which there is no relationship; create one first", home)
	}
	return err
}

// create is the transaction of a new relationship.
func (m *Manager) create(tx *raftstore.Tx, want *statev1.Relationship, bootstrap *bundle.Bundle, operator string, now time.Time) error {
	name := want.GetTrustDomain()
	if _, found, err := Relationships.Get(tx, name); err != nil {
		return err
	} else if found {
		return status.Errorf(codes.AlreadyExists, "there is a relationship with %s already; change it with `entente federation update %s`", name, name)
	}
	row := proto.Clone(want).(*statev1.Relationship)
	row.CreateTime = timestamppb.New(now)
	row.Generation = uint64(tx.Revision()) + 1
	rel, err := ParseRelationship(row)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := m.admit(tx, rel, bootstrap, nil); err != nil {
		return err
	}
	return m.write(tx, basis{relationship: rel, row: row, source: broughtBy(operator)}, bootstrap, now)
}

// change is an operator's change of a relationship.
type change struct {
	wanted    *ententev1.Relationship
	paths     []string
	bootstrap []byte
	reset     bool
	// operator is who asks for it.
	operator string
}

// broughtBy is the source of a bundle that an operator brings.
func broughtBy(operator string) string { return "bootstrap by " + operator }

// update is the transaction of a change. It writes nothing when nothing would be different.
func (m *Manager) update(tx *raftstore.Tx, c change, now time.Time) error {
	name := c.wanted.GetTrustDomain()
	row, err := existing(tx, name)
	if err != nil {
		return err
	}
	next := proto.Clone(row).(*statev1.Relationship)
	for _, path := range c.paths {
		updatable[path](next, c.wanted)
	}
	if len(c.bootstrap) == 0 && proto.Equal(row, next) {
		return nil
	}
	next.Generation = max(row.GetGeneration(), uint64(tx.Revision())) + 1
	rel, err := ParseRelationship(next)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	bootstrap, err := parseBootstrap(rel, c.bootstrap)
	if err != nil {
		return err
	}
	b := basis{relationship: rel, row: next, source: broughtBy(c.operator), reset: c.reset}
	held, found, err := ForeignBundles.Get(tx, name)
	if err != nil {
		return err
	}
	if found {
		b.current = newStored(held.Value)
	}
	current, err := b.current.bundle()
	if err != nil {
		return err
	}
	if err := m.admit(tx, rel, bootstrap, current); err != nil {
		return err
	}
	if bootstrap != nil && !c.reset {
		if err := Accept(current, bootstrap); err != nil {
			return status.Errorf(codes.FailedPrecondition, "the bootstrap bundle of %s is refused: %s", name, err)
		}
	}
	if found && bootstrap == nil && !slices.Equal(row.GetAuthorityKinds(), next.GetAuthorityKinds()) {
		// Those who follow the bundle see another one, though its document is stored as it was.
		held.Value.Decided = next.GetGeneration()
		if err := ForeignBundles.Put(tx, name, held.Value); err != nil {
			return err
		}
	}
	return m.write(tx, b, bootstrap, now)
}

// write writes a relationship as decided, and the bundle that comes with it. An operator's word counts as a success.
func (m *Manager) write(tx *raftstore.Tx, b basis, bootstrap *bundle.Bundle, now time.Time) error {
	name := b.row.GetTrustDomain()
	if bootstrap != nil {
		standing, err := m.putBundle(tx, b, bootstrap, now)
		if err != nil {
			return err
		}
		b.row.Standing = standing.row(now)
		b.row.Alarms = nil // the operator has looked into them
	}
	return Relationships.Put(tx, name, b.row)
}

// suspend is the transaction of suspending, and of resuming.
func suspend(tx *raftstore.Tx, name string, suspended bool) error {
	row, err := existing(tx, name)
	if err != nil || row.GetSuspended() == suspended {
		return err
	}
	row.Suspended = suspended
	row.Generation = max(row.GetGeneration(), uint64(tx.Revision())) + 1
	return Relationships.Put(tx, name, row)
}

// end is the transaction of deleting a relationship: its bundle goes with it, and the history of that. What came through it as a hub
// counts no more from then on, and is swept. toHub lets the word of a hub count that vouches for the domain too.
func end(tx *raftstore.Tx, name string, toHub bool) error {
	if _, err := existing(tx, name); err != nil {
		return err
	}
	if word, found, err := HubWord(tx, name); err != nil {
		return err
	} else if found && word.Hub != name && !toHub {
		return status.Errorf(codes.FailedPrecondition, "the hub %s vouches for %s too, and %s would be trusted by its word from then on; if that is meant, say so with --to-hub, "+
			"else end it first with `entente federation update %s --hub-except %s`", word.Hub, name, name, word.Hub, name)
	}
	if err := foreignHistory.Delete(tx, name); err != nil {
		return err
	}
	if err := ForeignBundles.Delete(tx, name); err != nil {
		return err
	}
	return Relationships.Delete(tx, name)
}

// endWithCompanion is the same with what was only there for it: the relationship with the other cluster's home domain, where an
// agreement has brought both and nothing else needs it.
func endWithCompanion(tx *raftstore.Tx, row *statev1.Relationship, toHub bool) error {
	name, home := row.GetTrustDomain(), row.GetPeer().GetHomeTrustDomain()
	if err := end(tx, name, toHub); err != nil || row.GetAgreement() == nil || home == name {
		return err
	}
	if needed, err := handOver(tx, name, home, row.GetAgreement().GetId()); err != nil || needed {
		return err
	}
	companion, found, err := Relationships.Get(tx, home)
	if a := companion.Value.GetAgreement(); err != nil || !found || !a.GetCompanion() || a.GetId() != row.GetAgreement().GetId() {
		return err
	}
	return end(tx, home, toHub)
}

// existing returns the row of a relationship, or a refusal that says that there is none.
func existing(r raftstore.Reader, name string) (*statev1.Relationship, error) {
	row, found, err := Relationships.Get(r, name)
	if err != nil {
		return nil, fmt.Errorf("read the relationship with %s: %w", quote(name), err)
	}
	if !found {
		if word, brought, err := HubWord(r, name); err == nil && brought {
			return nil, status.Errorf(codes.FailedPrecondition, "%s is trusted by the word of the hub %s and has no relationship of its own; `entente federation update %s --hub-except %s` "+
				"ends that, and `entente federation create %s` begins one", name, word.Hub, word.Hub, name, name)
		}
		return nil, status.Errorf(codes.NotFound, "there is no relationship with %s; `entente federation list` shows those that there are", quote(name))
	}
	return row.Value, nil
}
