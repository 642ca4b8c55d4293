package invitation

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// maxOfferedBundle limits one document in an offer; a message has two. The bundle of a cluster has about 10 KB.
const maxOfferedBundle = 100 << 10

// endpointPath is the SPIFFE ID of a member's bundle endpoint, in its home domain.
const endpointPath = "/entente/bundle-endpoint"

// offer returns this cluster's description of itself and of a hosted domain, for a cluster that is to trust the domain.
// advertised are the addresses that an operator gave for that cluster, if any, and roots the web roots for it.
func (m *Agreements) offer(
	r raftstore.Reader, own string, advertised []string, roots []byte,
) (*ententev1.FederationOffer, error) {
	c, home := m.config.Transport, m.config.Home
	self := m.config.announcement(own, advertised)
	o := &ententev1.FederationOffer{
		TrustDomain: own, HomeTrustDomain: home, Urls: self.Urls, Profile: c.Profile,
		Identities: self.Identities, PeerAddresses: self.Addresses, WebRoots: roots,
	}
	if o.GetProfile() == ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE {
		o.EndpointSpiffeId = "spiffe://" + home + endpointPath
	}
	document := func(td string) ([]byte, error) {
		row, found, err := m.config.Trust.Hosted.Bundles.Get(r, td)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, status.Errorf(codes.FailedPrecondition,
				"%s has no bundle yet; wait until its first authority is prepared, and try again", td)
		}
		b, err := trust.Parse(row.Value)
		if err != nil {
			return nil, err
		}
		d := b.Marshal()
		if len(d) > maxOfferedBundle {
			return nil, status.Errorf(codes.FailedPrecondition,
				"the bundle of %s has %d bytes, more than the %d that fit an invitation; use `entente federation "+
					"create` with --bootstrap",
				td, len(d), maxOfferedBundle)
		}
		return d, nil
	}
	var err error
	if o.Bundle, err = document(own); err != nil || own == home {
		return o, err
	}
	o.HomeUrls = self.HomeURLs
	o.HomeBundle, err = document(home)
	return o, err
}

// agreedRelationship is a relationship that an agreement is about to create, with its first bundle.
type agreedRelationship struct {
	row    *statev1.Relationship
	rel    *relationship.Relationship
	bundle *bundle.Bundle
}

// relationshipsOf parses another cluster's offer into the relationship with its domain and, if that is not its home
// domain, the relationship with the home domain, by which its members and its endpoint authenticate. The offer is
// hostile input; an error rejects all of it.
//
// Loopback addresses in it are refused unless loopback is set.
func relationshipsOf(
	o *ententev1.FederationOffer, a *statev1.RelationshipAgreement, loopback bool, now time.Time,
) ([]agreedRelationship, error) {
	roots, _, err := relationship.ParseWebRoots(o.GetWebRoots(), now)
	if err != nil {
		return nil, err
	}
	identities, err := relationship.ParseIdentities(o.GetIdentities())
	if err != nil {
		return nil, err
	}
	a.Identities = nil
	for _, d := range identities {
		a.Identities = append(a.Identities, d[:])
	}
	td, home := o.GetTrustDomain(), o.GetHomeTrustDomain()
	if _, err := relationship.ParseTrustDomain(home); err != nil {
		return nil, fmt.Errorf("its home domain: %w", err)
	}
	if id := o.GetEndpointSpiffeId(); id != "" && id != "spiffe://"+home+endpointPath {
		return nil, fmt.Errorf("the SPIFFE ID of its endpoint, %s, is not one of its home domain %s",
			relationship.Quote(id), relationship.Quote(home))
	}
	one := func(name string, urls []string, document []byte, linkedHome bool) (agreedRelationship, error) {
		if len(urls) == 0 {
			return agreedRelationship{}, errors.New("it has no endpoint URL")
		}
		if len(document) > maxOfferedBundle {
			return agreedRelationship{}, fmt.Errorf("the bundle of %s has %d bytes; the limit is %d",
				relationship.Quote(name), len(document), maxOfferedBundle)
		}
		if err := relationship.CheckHosts(slices.Concat(urls, o.GetPeerAddresses()), loopback); err != nil {
			return agreedRelationship{}, err
		}
		row := &statev1.Relationship{
			TrustDomain: name, Url: urls[0], FallbackUrls: urls[1:], Profile: int32(o.GetProfile()),
			EndpointSpiffeId: o.GetEndpointSpiffeId(), WebRoots: roots,
			Peer: &statev1.RelationshipPeer{HomeTrustDomain: home, Addresses: o.GetPeerAddresses()},
			Agreement: &statev1.RelationshipAgreement{
				Id: a.GetId(), HostedTrustDomain: a.GetHostedTrustDomain(), Invited: a.GetInvited(),
				ApproveTime: a.GetApproveTime(), Approver: a.GetApprover(),
				PeerApproveTime: a.GetPeerApproveTime(), Confirmed: a.GetConfirmed(), Identities: a.GetIdentities(),
				LinkedHome: linkedHome, Advertised: a.GetAdvertised(),
				Addresses: o.GetPeerAddresses(), Urls: urls, WebRootsSha256: endpoint.RootsDigest(roots),
			},
		}
		rel, err := relationship.Parse(row)
		if err != nil {
			return agreedRelationship{}, err
		}
		b, err := relationship.ParseBootstrap(rel, document)
		if err != nil {
			return agreedRelationship{}, errors.New(status.Convert(err).Message())
		}
		if b == nil || len(b.X509Authorities()) == 0 {
			return agreedRelationship{}, fmt.Errorf("it has no X.509 authority of %s", name)
		}
		return agreedRelationship{row, rel, b}, nil
	}
	var out []agreedRelationship
	if home != td {
		linkedHome, err := one(home, o.GetHomeUrls(), o.GetHomeBundle(), true)
		if err != nil {
			return nil, err
		}
		out = append(out, linkedHome)
	}
	main, err := one(td, o.GetUrls(), o.GetBundle(), false)
	return append(out, main), err
}

// agree is the part of a transaction that creates the relationships of an agreement. A relationship with the home
// domain that exists already is kept. The other cluster must then belong to that home domain: either proven, its
// identity key, is one of the members in the existing agreement, or the operator named the domain as home. A new
// relationship with a home domain is created only if the operator named it. Otherwise a cluster that is invited for one
// domain could bring trust in another one, or make this cluster dial addresses of its choice as the members of a third
// cluster.
func (m *Agreements) agree(
	tx *raftstore.Tx,
	all []agreedRelationship,
	home, source string,
	proven [32]byte,
	now time.Time,
) error {
	for _, r := range all {
		name := r.rel.TrustDomain.Name()
		hosted, err := m.config.Trust.Hosted.Hosts(tx, name)
		if err != nil {
			return err
		}
		if hosted {
			return status.Errorf(codes.FailedPrecondition,
				"%s is also hosted by this cluster, and a hosted domain is never foreign; each trust domain belongs "+
					"to one cluster",
				name)
		}
		was, found, err := relationship.Relationships.Get(tx, name)
		linkedHome := r.row.GetAgreement().GetLinkedHome()
		switch {
		case err != nil:
			return err
		case linkedHome && found && was.Value.GetAgreement().GetEndTime() == nil &&
			(name == home || relationship.HasMember(was.Value.GetAgreement().GetIdentities(), proven)):
			continue
		case linkedHome && found && was.Value.GetAgreement().GetEndTime() == nil:
			return refuseInvitation("other_home", codes.FailedPrecondition,
				"the cluster of %s claims the home trust domain %s, with which there is a relationship already, and "+
					"did not prove that it is the same cluster; if it is, confirm that with `entente federation "+
					"invite --for-home %s` or `accept --home %s`", all[len(all)-1].rel.TrustDomain, name, name, name)
		case linkedHome && name != home:
			return refuseInvitation("other_home", codes.FailedPrecondition,
				"the home trust domain of the cluster of %s is %s, which would be trusted too, but the operator did "+
					"not name it; to trust it, use `entente federation invite --for-home %s` or `accept --home %s`",
				all[len(all)-1].rel.TrustDomain, name, name, name)
		case found && was.Value.GetAgreement().GetEndTime() != nil:
			if err := relationship.Delete(m.config.Trust.Sources, tx, name, true); err != nil {
				return err
			}
		case found:
			return status.Errorf(codes.AlreadyExists,
				"there is a relationship with %s already; delete it first to replace it", name)
		}
		row := r.row
		row.CreateTime = timestamppb.New(now)
		relationship.New(tx, row)
		rel, err := relationship.Parse(row)
		if err != nil {
			return err
		}
		basis := intake.Basis{Rel: rel, Row: row, Source: source}
		if err := m.config.Intake.Write(tx, basis, r.bundle, now); err != nil {
			return err
		}
	}
	return nil
}
