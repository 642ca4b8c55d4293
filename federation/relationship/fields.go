package relationship

import (
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// field is a setting of a relationship that an operator can change. [Parse] validates it.
type field struct {
	// name is its name in an update mask.
	name string
	// set copies it from a request to a row, and show from a row to an answer. show is nil for a part of another field.
	set  func(to *statev1.Relationship, from *ententev1.Relationship)
	show func(to *ententev1.Relationship, from *statev1.Relationship)
}

// fields are all settings. Requests, update masks, stored rows and answers follow from this table.
var fields = []field{
	{
		"url",
		func(to *statev1.Relationship, from *ententev1.Relationship) { to.Url = from.GetUrl() },
		func(to *ententev1.Relationship, from *statev1.Relationship) { to.Url = from.GetUrl() },
	}, {
		"fallback_urls",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			to.FallbackUrls = slices.Clone(from.GetFallbackUrls())
		},
		func(to *ententev1.Relationship, from *statev1.Relationship) { to.FallbackUrls = from.GetFallbackUrls() },
	}, {
		"profile",
		func(to *statev1.Relationship, from *ententev1.Relationship) { to.Profile = int32(from.GetProfile()) },
		func(to *ententev1.Relationship, from *statev1.Relationship) {
			to.Profile = ententev1.EndpointProfile(from.GetProfile())
		},
	}, {
		"endpoint_spiffe_id",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			to.EndpointSpiffeId = from.GetEndpointSpiffeId()
		},
		func(to *ententev1.Relationship, from *statev1.Relationship) {
			to.EndpointSpiffeId = from.GetEndpointSpiffeId()
		},
	}, {
		"web_roots",
		func(to *statev1.Relationship, from *ententev1.Relationship) { to.WebRoots = from.GetWebRoots() },
		func(to *ententev1.Relationship, from *statev1.Relationship) { to.WebRoots = from.GetWebRoots() },
	}, {
		"serving_bundle",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			to.ServingBundle = from.GetServingBundle()
		},
		func(to *ententev1.Relationship, from *statev1.Relationship) {
			to.ServingBundle = from.GetServingBundle()
		},
	}, {
		"authority_kinds",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			to.AuthorityKinds = nil
			for _, kind := range from.GetAuthorityKinds() {
				to.AuthorityKinds = append(to.AuthorityKinds, int32(kind))
			}
		},
		func(to *ententev1.Relationship, from *statev1.Relationship) {
			for _, kind := range from.GetAuthorityKinds() {
				to.AuthorityKinds = append(to.AuthorityKinds, ententev1.AuthorityKind(kind))
			}
		},
	}, {
		"max_document_bytes",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			to.MaxDocumentBytes = from.GetMaxDocumentBytes()
		},
		func(to *ententev1.Relationship, from *statev1.Relationship) {
			to.MaxDocumentBytes = from.GetMaxDocumentBytes()
		},
	}, {
		"fetch_timeout",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			to.FetchTimeout = clone(from.GetFetchTimeout())
		},
		func(to *ententev1.Relationship, from *statev1.Relationship) { to.FetchTimeout = from.GetFetchTimeout() },
	}, {
		"max_stale_jwt",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			to.MaxStaleJwt = clone(from.GetMaxStaleJwt())
		},
		func(to *ententev1.Relationship, from *statev1.Relationship) {
			if to.MaxStaleJwt = from.GetMaxStaleJwt(); to.MaxStaleJwt == nil {
				to.MaxStaleJwt = durationpb.New(DefaultMaxStaleJWT)
			}
		},
	}, {
		"max_stale_x509",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			to.MaxStaleX509 = clone(from.GetMaxStaleX509())
		},
		func(to *ententev1.Relationship, from *statev1.Relationship) { to.MaxStaleX509 = from.GetMaxStaleX509() },
	}, {
		"peer",
		func(to *statev1.Relationship, from *ententev1.Relationship) { to.Peer = peerRow(from.GetPeer()) },
		func(to *ententev1.Relationship, from *statev1.Relationship) {
			if p := from.GetPeer(); p != nil {
				to.Peer = &ententev1.Peer{HomeTrustDomain: p.GetHomeTrustDomain(), Addresses: p.GetAddresses()}
			}
		},
	}, {
		"peer.addresses",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			if to.Peer == nil && from.GetPeer() != nil {
				to.Peer = &statev1.RelationshipPeer{} // refused, because it names no peer
			}
			if to.Peer != nil {
				to.Peer.Addresses = from.GetPeer().GetAddresses()
			}
		},
		nil,
	}, {
		"attest",
		func(to *statev1.Relationship, from *ententev1.Relationship) { to.Attest = from.GetAttest() },
		func(to *ententev1.Relationship, from *statev1.Relationship) { to.Attest = from.GetAttest() },
	}, {
		"hub",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			if to.Hub = hubRow(from.GetHub()); to.Hub == nil {
				to.HubStanding = nil
			}
		},
		func(to *ententev1.Relationship, from *statev1.Relationship) {
			if h := from.GetHub(); h != nil {
				to.Hub = &ententev1.Hub{Include: h.GetInclude(), Exclude: h.GetExclude(), Url: h.GetUrl()}
			}
		},
	}, {
		"hub.include",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			hubOf(to, from).Include = slices.Clone(from.GetHub().GetInclude())
		},
		nil,
	}, {
		"hub.exclude",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			hubOf(to, from).Exclude = slices.Clone(from.GetHub().GetExclude())
		},
		nil,
	}, {
		"hub.url",
		func(to *statev1.Relationship, from *ententev1.Relationship) {
			hubOf(to, from).Url = from.GetHub().GetUrl()
		},
		nil,
	},
}

// hubOf returns the hub of a row, for a change of a part of it. If there is none and none is requested, the change has
// no effect.
func hubOf(to *statev1.Relationship, from *ententev1.Relationship) *statev1.RelationshipHub {
	switch {
	case to.GetHub() == nil && from.GetHub() == nil:
		return &statev1.RelationshipHub{}
	case to.GetHub() == nil:
		to.Hub = &statev1.RelationshipHub{} // refused, unless the request includes something
	}
	return to.GetHub()
}

func clone(d *durationpb.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return proto.Clone(d).(*durationpb.Duration)
}

// FromRequest returns the row that a request for a new relationship describes, without what the server sets.
func FromRequest(in *ententev1.Relationship) (*statev1.Relationship, error) {
	row := &statev1.Relationship{TrustDomain: in.GetTrustDomain()}
	for _, f := range fields {
		f.set(row, in)
	}
	switch in.GetState() {
	case ententev1.RelationshipState_RELATIONSHIP_STATE_UNSPECIFIED,
		ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE:
	case ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED:
		row.Suspended = true
	default:
		return nil, status.Errorf(
			codes.InvalidArgument,
			"state %d is not known; leave it out, or use active or suspended",
			in.GetState(),
		)
	}
	return row, nil
}

// CheckMask checks the names in an update mask.
func CheckMask(paths []string) error {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	for _, path := range paths {
		if !slices.Contains(names, path) {
			slices.Sort(names)
			return status.Errorf(codes.InvalidArgument, "update_mask names %s, which cannot be updated; these can: %s",
				Quote(path), strings.Join(names, ", "))
		}
	}
	return nil
}

// Apply changes the fields of a row that a checked update mask names, in the order of the mask.
func Apply(row *statev1.Relationship, paths []string, wanted *ententev1.Relationship) {
	for _, path := range paths {
		for _, f := range fields {
			if f.name == path {
				f.set(row, wanted)
			}
		}
	}
}

// Message returns a relationship as the API has it: the fields, and what the row has besides.
func Message(row *statev1.Relationship) *ententev1.Relationship {
	out := &ententev1.Relationship{
		TrustDomain: row.GetTrustDomain(), State: StateOf(row), Agreement: AgreementMessage(row.GetAgreement()),
		CreateTime: row.GetCreateTime(), Freshness: ententev1.Freshness(row.GetStanding().GetFreshness()),
	}
	for _, f := range fields {
		if f.show != nil {
			f.show(out, row)
		}
	}
	return out
}
