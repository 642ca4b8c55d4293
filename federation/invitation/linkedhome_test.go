package invitation

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/token"
)

// alongRow is a relationship that an agreement has brought, in force, with a domain of the cluster of home.example.org.
func alongRow(name, id string) *statev1.Relationship {
	return &statev1.Relationship{
		TrustDomain: name, Url: "https://" + name + "/", Profile: int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB), Generation: 1,
		Peer: &statev1.RelationshipPeer{
			HomeTrustDomain: "home.example.org",
			Addresses:       []string{"home.example.org:7440"},
		},
		Agreement: &statev1.RelationshipAgreement{
			Id: id, HostedTrustDomain: "eu.example.org", ApproveTime: some, PeerApproveTime: some, Confirmed: true, LinkedHome: name == "home.example.org",
			Identities: [][]byte{append(make([]byte, 31), 9)},
		},
	}
}

// The home domain that came along with one agreement is relied on while another one needs it, and no longer.
func TestACompanionLastsAsLongAsItIsNeeded(t *testing.T) {
	first, second := token.NewID(), token.NewID()
	said := func(r *room, name, id string) error {
		return r.manager.receive(
			t.Context(),
			name,
			id,
			ententev1.Consent_CONSENT_ENDED,
			relationship.Announcement{},
			true,
		)
	}
	deleted := func(r *room, name, _ string) error {
		_, err := r.service.DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{TrustDomain: name})
		return err
	}
	for name, end := range map[string]func(r *room, name, id string) error{"the other side ends them": said, "this side deletes them": deleted} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
				return errors.Join(
					relationship.Relationships.Put(tx, "shop.example.org", alongRow("shop.example.org", first)),
					relationship.Relationships.Put(tx, "home.example.org", alongRow("home.example.org", first)),
					relationship.Relationships.Put(tx, "store.example.org", alongRow("store.example.org", second)),
				)
			})
			require.NoError(t, err)
			companion := func() bool {
				row, found, err := relationship.Relationships.Get(r.store.View(), "home.example.org")
				require.NoError(t, err)
				return found && relationship.InForce(row.Value)
			}
			require.NoError(t, end(r, "shop.example.org", first))
			require.True(t, companion(), "the store needs it")
			require.NoError(t, end(r, "store.example.org", second))
			require.False(t, companion(), "nothing needs it")
		})
	}
}

// The home domain that came along is consented to with the domain that the agreement is about, and not by itself:
// nobody would be told.
func TestACompanionIsNotConsentedToByItself(t *testing.T) {
	r, id := newRoom(t), token.NewID()
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		home, shop := alongRow("home.example.org", id), alongRow("shop.example.org", id)
		home.Agreement.ApproveTime, shop.Agreement.ApproveTime = nil, nil
		return errors.Join(
			relationship.Relationships.Put(tx, "home.example.org", home),
			relationship.Relationships.Put(tx, "shop.example.org", shop),
		)
	})
	require.NoError(t, err)
	_, err = r.service.ApproveRelationship(
		t.Context(),
		&ententev1.ApproveRelationshipRequest{TrustDomain: "home.example.org"},
	)
	require.ErrorContains(t, err, "home.example.org came along with shop.example.org, and is consented to with it")
	for _, name := range []string{"home.example.org", "shop.example.org"} {
		require.False(t, relationship.InForce(mustGet(t, r.store.View(), name)), name)
	}
	_, err = r.service.ApproveRelationship(
		t.Context(),
		&ententev1.ApproveRelationshipRequest{TrustDomain: "shop.example.org"},
	)
	require.NoError(t, err)
	for _, name := range []string{"home.example.org", "shop.example.org"} {
		require.True(t, relationship.InForce(mustGet(t, r.store.View(), name)), name)
	}
}

// Whoever accepts an invitation for a domain of its own cannot say that another cluster hosts it.
func TestAHomeDomainIsShownOrNamed(t *testing.T) {
	a, home := federationtest.NewAuthority(t, "shop.example.org"), federationtest.NewAuthority(t, "home.example.org")
	for name, c := range map[string]struct {
		named  string
		proven [32]byte
		says   string
	}{
		"another cluster":                    {proven: [32]byte{31: 7}, says: "has not shown that it is the same cluster"},
		"the operator has named another one": {named: "us.example.org", proven: [32]byte{31: 7}, says: "has not shown that it is the same cluster"},
		"a member of that cluster":           {proven: [32]byte{31: 9}},
		"the operator has named it":          {named: "home.example.org", proven: [32]byte{31: 7}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			all, err := relationshipsOf(&ententev1.FederationOffer{
				TrustDomain: "shop.example.org", HomeTrustDomain: "home.example.org", Bundle: a.Bundle(t, 1).Marshal(), HomeBundle: home.Bundle(t, 1).Marshal(),
				Urls: []string{
					"https://shop.example.org/",
				}, HomeUrls: []string{"https://home.example.org/"}, Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
				PeerAddresses: []string{
					"evil.example.org:7440",
				}, Identities: [][]byte{c.proven[:], append(make([]byte, 31), 9)},
			}, &statev1.RelationshipAgreement{Id: token.NewID()})
			require.NoError(t, err)
			_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
				if err := relationship.Relationships.Put(tx, "home.example.org", alongRow("home.example.org", token.NewID())); err != nil {
					return err
				}
				return r.manager.agree(tx, all, c.named, "test", c.proven, someTime)
			})
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
		})
	}
}
