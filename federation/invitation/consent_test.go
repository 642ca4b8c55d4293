package invitation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// callers counts the calls of each address. Calls of addresses that contain "hang" block.
type callers struct {
	mu      sync.Mutex
	called  map[string]int
	members []Member
}

func (c *callers) dial(ctx context.Context, address string, _ func([32]byte) error) (net.Conn, []byte, error) {
	c.mu.Lock()
	c.called[address]++
	c.mu.Unlock()
	if strings.Contains(address, "hang") {
		<-ctx.Done()
	}
	return nil, nil, errors.New("connection refused")
}

func (c *callers) calls(address string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.called[address]
}

func (c *callers) inviting() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members
}

func newConsentRoom(t *testing.T) (*room, *callers) {
	t.Helper()
	identity, err := memberid.LoadIdentity(filepath.Join(t.TempDir(), "identity.key"))
	require.NoError(t, err)
	c := &callers{
		called:  map[string]int{},
		members: []Member{{Address: "eu-1.example.org:7440", Identity: identity.Digest}},
	}
	r := newRoom(t, func(config *Config) {
		config.Transport = Transport{
			Identity:  identity,
			Members:   c.inviting,
			Endpoints: func(td string, _ []string) []string { return []string{"https://eu.example.org/bundles/" + td} },
			Dial:      c.dial,
			Binding:   func(context.Context) ([]byte, bool) { return someBinding, true },
		}
	})
	return r, c
}

var someBinding = []byte("binding")

// exchange calls ExchangeConsent as another cluster does.
func (r *room) exchange(t *testing.T, c *ententev1.ExchangeConsentContent) (*ententev1.ExchangeConsentResponse, error) {
	t.Helper()
	content, err := proto.Marshal(c)
	require.NoError(t, err)
	signed, err := r.manager.sign(purposeConsent, someBinding, content)
	require.NoError(t, err)
	return NewService(r.manager).ExchangeConsent(t.Context(),
		&ententev1.ExchangeConsentRequest{Content: content, Signed: signed})
}

// TestExchangeRevealsNoRelationship tests that a caller without an agreement does not learn which relationships exist.
func TestExchangeRevealsNoRelationship(t *testing.T) {
	r, _ := newConsentRoom(t)
	r.agree(t, "us.example.org", true)
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return relationship.Relationships.Put(tx, "asia.example.org",
			&statev1.Relationship{TrustDomain: "asia.example.org"})
	})
	require.NoError(t, err)
	for _, name := range []string{"us.example.org", "asia.example.org", "unknown.example.org"} {
		answer, err := r.exchange(
			t,
			&ententev1.ExchangeConsentContent{
				AgreementId:      token.NewID(),
				TrustDomain:      name,
				OtherTrustDomain: "eu.example.org",
			},
		)
		require.NoError(t, err)
		require.Equal(t, ententev1.Consent_CONSENT_ENDED, answer.GetConsent())
		require.Empty(t, answer.GetIdentities())
		_, err = r.exchange(t, &ententev1.ExchangeConsentContent{TrustDomain: name})
		require.ErrorContains(t, err, "the agreement's id is malformed", name)
	}
}

// agree stores a relationship that was made by an invitation.
func (r *room) agree(t *testing.T, name string, approved bool) {
	t.Helper()
	row := &statev1.Relationship{
		TrustDomain: name, Url: "https://" + name + "/",
		Profile: int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB), Generation: 1,
		Peer: &statev1.RelationshipPeer{HomeTrustDomain: name, Addresses: []string{name + ":7440"}},
		Agreement: &statev1.RelationshipAgreement{
			Id:                token.NewID(),
			HostedTrustDomain: "eu.example.org",
			Confirmed:         true,
			Identities:        [][]byte{make([]byte, 32)},
		},
	}
	if approved {
		row.Agreement.ApproveTime, row.Agreement.PeerApproveTime = some, some
	}
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return relationship.Relationships.Put(tx, name,
			row)
	})
	require.NoError(t, err)
}

// TestHangingPeers tests that peers which hang do not delay an operator's consent to another one.
func TestHangingPeers(t *testing.T) {
	r, c := newConsentRoom(t)
	for i := range 3 * maxCalls {
		r.agree(t, fmt.Sprintf("hang-%d.example.org", i), false)
	}
	r.run(t)
	until(t, "all paced exchanges to hang", func() bool { return len(r.manager.poller.paced) == maxCalls })
	r.agree(t, "us.example.org", false)
	_, err := r.service.ApproveRelationship(t.Context(),
		&ententev1.ApproveRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	until(t, "us.example.org to be called", func() bool { return c.calls("us.example.org:7440") > 0 })
}

// TestChangedMembersAreAnnounced tests that a change of members is announced to the other sides at once, and repeated
// until they have received it.
func TestChangedMembersAreAnnounced(t *testing.T) {
	r, c := newConsentRoom(t)
	r.agree(t, "us.example.org", true)
	r.run(t)
	until(t, "its schedule", func() bool {
		r.manager.poller.mu.Lock()
		defer r.manager.poller.mu.Unlock()
		return !r.manager.poller.next["us.example.org"].at.IsZero()
	})
	c.mu.Lock()
	c.members = append([]Member{{Address: "eu-2.example.org:7440", Identity: [32]byte{2}}}, c.members...)
	c.mu.Unlock()
	until(t, "the announcement and its repetition", func() bool { return c.calls("us.example.org:7440") > 1 })
}

// TestMovedMembers tests that new addresses of another cluster's members, once announced, are used for its stream.
func TestMovedMembers(t *testing.T) {
	r, c := newConsentRoom(t)
	r.agree(t, "us.example.org", true)
	var id string
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		row, _, err := relationship.Relationships.Get(tx, "us.example.org")
		if err != nil {
			return err
		}
		id = row.Value.GetAgreement().GetId()
		row.Value.Agreement.Identities = [][]byte{
			c.members[0].Identity[:],
		} // the test signs with the room's own key
		row.Value.Agreement.Addresses = row.Value.GetPeer().GetAddresses()
		return relationship.Relationships.Put(tx, row.Key, row.Value)
	})
	require.NoError(t, err)
	r.run(t)
	announce := func(addresses ...string) error {
		_, err := r.exchange(t, &ententev1.ExchangeConsentContent{
			AgreementId: id, TrustDomain: "us.example.org", OtherTrustDomain: "eu.example.org",
			Consent:    ententev1.Consent_CONSENT_APPROVED,
			Identities: [][]byte{c.members[0].Identity[:]}, Addresses: addresses,
		})
		return err
	}
	follows := func(what string, addresses ...string) {
		until(t, what, func() bool {
			plan, _ := r.mirror.PlanOf("us.example.org")
			return slices.Equal(plan.Addresses, addresses)
		})
	}
	require.NoError(t, announce("us.example.org:7441", "us.example.org:7442"))
	follows("the plan of the stream to follow", "us.example.org:7441", "us.example.org:7442")
	require.NoError(t, announce("us.example.org:7443", "169.254.7.7.nip.example:80"))
	require.NoError(t, announce("us.example.org:7443", "us-8.example.org:7440"))
	row, _, err := relationship.Relationships.Get(r.store.View(), "us.example.org")
	require.NoError(t, err)
	require.Equal(t, []string{"us.example.org:7441", "us.example.org:7442"}, row.Value.GetPeer().GetAddresses())
	_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		sources, now := r.manager.config.Trust.Sources, r.manager.config.Now()
		return relationship.Approve(sources, tx, "us.example.org", "operator", now)
	})
	require.NoError(t, err)
	follows("the approved addresses", "us-8.example.org:7440", "us.example.org:7443")
	require.ErrorContains(t, announce("us-7.example.org"), "HOST:PORT")
	for range receiveBurst {
		if err = announce("us-7.example.org:7440"); err != nil {
			break
		}
	}
	require.ErrorContains(t, err, "more than one call in 1s for the agreement with us.example.org",
		"each announcement is written, so their rate is limited")
}
