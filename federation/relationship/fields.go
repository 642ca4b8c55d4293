package relationship

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

// Fields are the fields that UpdateRelationship takes, by their names in a field mask.
var Fields = map[string]func(to *statev1.Relationship, from *ententev1.Relationship){
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
	"attest": func(to *statev1.Relationship, from *ententev1.Relationship) { to.Attest = from.GetAttest() },
	"hub": func(to *statev1.Relationship, from *ententev1.Relationship) {
		if to.Hub = hubRow(from.GetHub()); to.Hub == nil {
			to.HubStanding = nil
		}
	},
	"hub.include": func(to *statev1.Relationship, from *ententev1.Relationship) {
		hubOf(to, from).Include = slices.Clone(from.GetHub().GetInclude())
	},
	"hub.exclude": func(to *statev1.Relationship, from *ententev1.Relationship) {
		hubOf(to, from).Exclude = slices.Clone(from.GetHub().GetExclude())
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

// FromRequest is the row that a request for a new relationship describes, as yet without what the server sets.
func FromRequest(in *ententev1.Relationship) (*statev1.Relationship, error) {
	row := &statev1.Relationship{TrustDomain: in.GetTrustDomain()}
	for _, take := range Fields {
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

// CheckMask checks the names in a field mask.
func CheckMask(paths []string) error {
	for _, path := range paths {
		if Fields[path] == nil {
			names := make([]string, 0, len(Fields))
			for name := range Fields {
				names = append(names, name)
			}
			slices.Sort(names)
			return status.Errorf(codes.InvalidArgument, "update_mask names %s, which cannot be updated; these can: %s", Quote(path), strings.Join(names, ", "))
		}
	}
	return nil
}

// ParseBootstrap reads the bundle that an operator brings for a trust domain; nil if there is none.
func ParseBootstrap(r *Relationship, document []byte) (*bundle.Bundle, error) {
	if len(document) == 0 {
		return nil, nil
	}
	b, _, err := bundle.Parse(r.TrustDomain, document)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "bootstrap_bundle of %s: %s; get the document from the peer's operator anew", r.TrustDomain, Clip(err.Error()))
	}
	if err := Accept(nil, b); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "bootstrap_bundle of %s: %v", r.TrustDomain, err)
	}
	return b, nil
}

// SetSuspended is the transaction of suspending, and of resuming.
func SetSuspended(tx *raftstore.Tx, name string, suspended bool) error {
	row, err := Get(tx, name)
	if err != nil || row.GetSuspended() == suspended {
		return err
	}
	row.Suspended = suspended
	row.Generation = max(row.GetGeneration(), uint64(tx.Revision())) + 1
	return Relationships.Put(tx, name, row)
}

// Delete is the transaction of deleting a relationship: its bundle goes with it, and the history of that. What came through it as a hub
// counts no more from then on, and is swept. toHub lets the word of a hub count that vouches for the domain too.
func Delete(tx *raftstore.Tx, name string, toHub bool) error {
	if _, err := Get(tx, name); err != nil {
		return err
	}
	if word, found, err := AttestationOf(tx, name); err != nil {
		return err
	} else if found && word.Hub != name && !toHub {
		return status.Errorf(codes.FailedPrecondition, "the hub %s vouches for %s too, and %s would be trusted by its word from then on; if that is meant, say so with --to-hub, "+
			"else end it first with `entente federation update %s --hub-exclude %s`", word.Hub, name, name, word.Hub, name)
	}
	if err := ForeignHistory.Delete(tx, name); err != nil {
		return err
	}
	if err := ForeignBundles.Delete(tx, name); err != nil {
		return err
	}
	return Relationships.Delete(tx, name)
}

// DeleteWithLinkedHome is the same with what was only there for it: the relationship with the other cluster's home domain, where an
// agreement has brought both and nothing else needs it.
func DeleteWithLinkedHome(tx *raftstore.Tx, row *statev1.Relationship, toHub bool) error {
	name, home := row.GetTrustDomain(), row.GetPeer().GetHomeTrustDomain()
	if err := Delete(tx, name, toHub); err != nil || row.GetAgreement() == nil || home == name {
		return err
	}
	if needed, err := ReassignLinkedHome(tx, name, home, row.GetAgreement().GetId()); err != nil || needed {
		return err
	}
	companion, found, err := Relationships.Get(tx, home)
	if a := companion.Value.GetAgreement(); err != nil || !found || !a.GetLinkedHome() || a.GetId() != row.GetAgreement().GetId() {
		return err
	}
	return Delete(tx, home, toHub)
}

// Get returns the row of a relationship, or a refusal that says that there is none.
func Get(r raftstore.Reader, name string) (*statev1.Relationship, error) {
	row, found, err := Relationships.Get(r, name)
	if err != nil {
		return nil, fmt.Errorf("read the relationship with %s: %w", Quote(name), err)
	}
	if !found {
		if word, brought, err := AttestationOf(r, name); err == nil && brought {
			return nil, status.Errorf(codes.FailedPrecondition, "%s is trusted by the word of the hub %s and has no relationship of its own; `entente federation update %s --hub-exclude %s` "+
				"ends that, and `entente federation create %s` begins one", name, word.Hub, word.Hub, name, name)
		}
		return nil, status.Errorf(codes.NotFound, "there is no relationship with %s; `entente federation list` shows those that there are", Quote(name))
	}
	return row.Value, nil
}
