package invitation

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
)

// agreedRow returns a relationship that an agreement created, in force, with a domain of the cluster of
// home.example.org.
func agreedRow(name, id string) *statev1.Relationship {
	return &statev1.Relationship{
		TrustDomain: name, Url: "https://" + name + "/",
		Profile: int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB), Generation: 1,
		Peer: &statev1.RelationshipPeer{
			HomeTrustDomain: "home.example.org",
			Addresses:       []string{"home.example.org:7440"},
		},
		Agreement: &statev1.RelationshipAgreement{
			Id: id, HostedTrustDomain: "eu.example.org", ApproveTime: some, PeerApproveTime: some, Confirmed: true,
			LinkedHome: name == "home.example.org",
			Identities: [][]byte{append(make([]byte, 31), 9)},
		},
	}
}

// TestLinkedHomeLastsWhileNeeded tests that the home domain of one agreement stays while another agreement needs it,
// and ends with that.
func TestLinkedHomeLastsWhileNeeded(t *testing.T) {
	first, second := token.NewID(), token.NewID()
	ended := func(r *room, name, id string) error {
		return r.manager.receive(t.Context(), name, id, ententev1.Consent_CONSENT_ENDED, relationship.Announcement{},
			true)
	}
	deleted := func(r *room, name, _ string) error {
		_, err := r.service.DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{TrustDomain: name})
		return err
	}
	for name, end := range map[string]func(r *room, name, id string) error{
		"the other side ends them": ended,
		"this side deletes them":   deleted,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
				return errors.Join(
					relationship.Relationships.Put(tx, "shop.example.org", agreedRow("shop.example.org", first)),
					relationship.Relationships.Put(tx, "home.example.org", agreedRow("home.example.org", first)),
					relationship.Relationships.Put(tx, "store.example.org", agreedRow("store.example.org", second)),
				)
			})
			require.NoError(t, err)
			linkedHome := func() bool {
				row, found, err := relationship.Relationships.Get(r.store.View(), "home.example.org")
				require.NoError(t, err)
				return found && relationship.InForce(row.Value)
			}
			require.NoError(t, end(r, "shop.example.org", first))
			require.True(t, linkedHome(), "store.example.org needs it")
			require.NoError(t, end(r, "store.example.org", second))
			require.False(t, linkedHome(), "nothing needs it")
		})
	}
}

// TestLinkedHomeIsApprovedWithItsAgreement tests that a linked home is approved with the domain of its agreement, and
// not by itself, because an approval of its own would not be sent to the other side.
func TestLinkedHomeIsApprovedWithItsAgreement(t *testing.T) {
	r, id := newRoom(t), token.NewID()
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		home, shop := agreedRow("home.example.org", id), agreedRow("shop.example.org", id)
		home.Agreement.ApproveTime, shop.Agreement.ApproveTime = nil, nil
		return errors.Join(relationship.Relationships.Put(tx, "home.example.org", home),
			relationship.Relationships.Put(tx, "shop.example.org", shop))
	})
	require.NoError(t, err)
	_, err = r.service.ApproveRelationship(t.Context(),
		&ententev1.ApproveRelationshipRequest{TrustDomain: "home.example.org"})
	require.ErrorContains(t, err, "home.example.org came along with shop.example.org, and is consented to with it")
	for _, name := range []string{"home.example.org", "shop.example.org"} {
		require.False(t, relationship.InForce(mustGet(t, r.store.View(), name)), name)
	}
	_, err = r.service.ApproveRelationship(t.Context(),
		&ententev1.ApproveRelationshipRequest{TrustDomain: "shop.example.org"})
	require.NoError(t, err)
	for _, name := range []string{"home.example.org", "shop.example.org"} {
		require.True(t, relationship.InForce(mustGet(t, r.store.View(), name)), name)
	}
}

// TestHomeDomainIsProvenOrNamed tests that a cluster cannot claim the home domain of another cluster.
func TestHomeDomainIsProvenOrNamed(t *testing.T) {
	a, home := federationtest.NewAuthority(t, "shop.example.org"), federationtest.NewAuthority(t, "home.example.org")
	for name, c := range map[string]struct {
		named  string
		proven [32]byte
		text   string
	}{
		"another cluster": {proven: [32]byte{31: 7},
			text: "did not prove that it is the same cluster"},
		"the operator has named another one": {named: "us.example.org", proven: [32]byte{31: 7},
			text: "did not prove that it is the same cluster"},
		"a member of that cluster":  {proven: [32]byte{31: 9}},
		"the operator has named it": {named: "home.example.org", proven: [32]byte{31: 7}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			all, err := relationshipsOf(&ententev1.FederationOffer{
				TrustDomain: "shop.example.org", HomeTrustDomain: "home.example.org", Bundle: a.Bundle(t, 1).Marshal(),
				HomeBundle: home.Bundle(t, 1).Marshal(),
				Urls: []string{
					"https://shop.example.org/",
				}, HomeUrls: []string{"https://home.example.org/"},
				Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
				PeerAddresses: []string{
					"evil.example.org:7440",
				}, Identities: [][]byte{c.proven[:], append(make([]byte, 31), 9)},
			}, &statev1.RelationshipAgreement{Id: token.NewID()}, false, time.Now())
			require.NoError(t, err)
			_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
				row := agreedRow("home.example.org", token.NewID())
				if err := relationship.Relationships.Put(tx, "home.example.org", row); err != nil {
					return err
				}
				return r.manager.agree(tx, all, c.named, "test", c.proven, someTime)
			})
			if c.text == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.text)
		})
	}
}
