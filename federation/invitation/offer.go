package invitation

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// maxOfferedBundle bounds a document in an offer, two of which go into one message. A bundle of a cluster has some ten
// kilobytes.
const maxOfferedBundle = 100 << 10

// endpointPath is the SPIFFE ID of a member's bundle endpoint, in its home domain.
const endpointPath = "/entente/bundle-endpoint"

// offer returns what this cluster offers to one that is to trust a hosted domain.
func (m *Agreements) offer(r raftstore.Reader, own string) (*ententev1.FederationOffer, error) {
	c, home := m.config.Transport, m.config.Home
	o := &ententev1.FederationOffer{
		TrustDomain: own, HomeTrustDomain: home, Urls: c.Endpoints(own), Profile: c.Profile, Identities: m.ownIdentities(),
	}
	if o.GetProfile() == ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE {
		o.EndpointSpiffeId = "spiffe://" + home + endpointPath
	}
	o.PeerAddresses = m.ownAddresses()
	document := func(td string) ([]byte, error) {
		row, found, err := m.config.Trust.Hosted.Bundles.Get(r, td)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, status.Errorf(
				codes.FailedPrecondition,
				"%s has no bundle yet; wait until its first authority is prepared, and try again",
				td,
			)
		}
		b, err := trust.Parse(row.Value)
		if err != nil {
			return nil, err
		}
		d := b.Marshal()
		if len(d) > maxOfferedBundle {
			return nil, status.Errorf(
				codes.FailedPrecondition,
				"the bundle of %s has %d bytes, and an invitation carries %d at most; federate with `entente "+
					"federation create` and --bootstrap",
				td,
				len(d),
				maxOfferedBundle,
			)
		}
		return d, nil
	}
	var err error
	if o.Bundle, err = document(own); err != nil || own == home {
		return o, err
	}
	o.HomeUrls = c.Endpoints(home)
	o.HomeBundle, err = document(home)
	return o, err
}

// agreedRelationship is a relationship that an agreement is about to create, with its first bundle.
type agreedRelationship struct {
	row    *statev1.Relationship
	rel    *relationship.Relationship
	bundle *bundle.Bundle
}

// relationshipsOf derives from another cluster's offer the relationship with its domain and, if that is not its home
// domain, before it the linked home relationship, by which its members and its endpoint authenticate. An offer is
// hostile until it is parsed here.
func relationshipsOf(o *ententev1.FederationOffer, a *statev1.RelationshipAgreement) ([]agreedRelationship, error) {
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
		return nil, fmt.Errorf(
			"its endpoint is said to prove itself as %s, which is not of its home domain %s",
			relationship.Quote(id),
			relationship.Quote(home),
		)
	}
	one := func(name string, urls []string, document []byte, companion bool) (agreedRelationship, error) {
		if len(urls) == 0 {
			return agreedRelationship{}, errors.New("it names no endpoint")
		}
		if len(document) > maxOfferedBundle {
			return agreedRelationship{}, fmt.Errorf(
				"the bundle of %s has %d bytes; %d are the most",
				relationship.Quote(name),
				len(document),
				maxOfferedBundle,
			)
		}
		row := &statev1.Relationship{
			TrustDomain: name, Url: urls[0], FallbackUrls: urls[1:], Profile: int32(o.GetProfile()), EndpointSpiffeId: o.GetEndpointSpiffeId(),
			Peer: &statev1.RelationshipPeer{HomeTrustDomain: home, Addresses: o.GetPeerAddresses()},
			Agreement: &statev1.RelationshipAgreement{
				Id: a.GetId(), HostedTrustDomain: a.GetHostedTrustDomain(), Invited: a.GetInvited(), ApproveTime: a.GetApproveTime(), Approver: a.GetApprover(),
				PeerApproveTime: a.GetPeerApproveTime(), Confirmed: a.GetConfirmed(), Identities: a.GetIdentities(), LinkedHome: companion,
				Addresses: o.GetPeerAddresses(), Urls: urls,
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
			return agreedRelationship{}, fmt.Errorf("it brings no X.509 authority of %s", name)
		}
		return agreedRelationship{row, rel, b}, nil
	}
	var out []agreedRelationship
	if home != td {
		companion, err := one(home, o.GetHomeUrls(), o.GetHomeBundle(), true)
		if err != nil {
			return nil, err
		}
		out = append(out, companion)
	}
	main, err := one(td, o.GetUrls(), o.GetBundle(), false)
	return append(out, main), err
}

// agree is the part of a transaction that creates the relationships of an agreement. An existing relationship with a
// home domain is kept, if the other cluster has proven a member's identity key of it, or the operator named the home
// domain. A new one is created only for a home domain that the operator named: an invitation for one domain must not
// add trust in any other, nor redirect calls to a third cluster's members.
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
			return status.Errorf(
				codes.FailedPrecondition,
				"%s is hosted by this cluster too, and a hosted domain is never foreign; each trust domain belongs to "+
					"one cluster",
				name,
			)
		}
		was, found, err := relationship.Relationships.Get(tx, name)
		companion := r.row.GetAgreement().GetLinkedHome()
		switch {
		case err != nil:
			return err
		case companion && found && was.Value.GetAgreement().GetEndTime() == nil && (name == home || relationship.HasMember(was.Value.GetAgreement().GetIdentities(), proven)):
			continue
		case companion && found && was.Value.GetAgreement().GetEndTime() == nil:
			return refuseInvitation(
				"other_home",
				codes.FailedPrecondition,
				"the cluster of %s says that its home trust domain is %s, with which there is a relationship, and has "+
					"not shown that it is "+
					"the same cluster; where it is, say so: `entente federation invite --for-home %s` or `accept "+
					"--home %s`",
				all[len(all)-1].rel.TrustDomain,
				name,
				name,
				name,
			)
		case companion && name != home:
			return refuseInvitation(
				"other_home",
				codes.FailedPrecondition,
				"the home trust domain of the cluster of %s is %s, which would be trusted too, and the operator has "+
					"not named it: "+
					"`entente federation invite --for-home %s` or `accept --home %s`, where that is meant",
				all[len(all)-1].rel.TrustDomain,
				name,
				name,
				name,
			)
		case found && was.Value.GetAgreement().GetEndTime() != nil:
			if err := relationship.Delete(tx, name, true); err != nil {
				return err
			}
		case found:
			return status.Errorf(
				codes.AlreadyExists,
				"there is a relationship with %s already; delete it first if it is to be made anew",
				name,
			)
		}
		row := r.row
		row.CreateTime, row.Generation = timestamppb.New(now), uint64(tx.Revision())+1
		rel, err := relationship.Parse(row)
		if err != nil {
			return err
		}
		if err := m.config.Intake.Write(tx, intake.Basis{Rel: rel, Row: row, Source: source}, r.bundle, now); err != nil {
			return err
		}
	}
	return nil
}
