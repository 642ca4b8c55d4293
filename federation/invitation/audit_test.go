package invitation

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// TestAcceptedInvitationsAreAudited tests that no invitation is accepted without a line in the audit log, that it stays
// open then, and which lines a later attempt and a refusal have.
func TestAcceptedInvitationsAreAudited(t *testing.T) {
	log, session := &federationtest.AuditLog{Full: true}, []byte("session")
	r := newRoom(t, func(c *Config) {
		c.Audit = log
		c.Transport = Transport{
			Members:   func() []Member { return []Member{{Address: "eu-1.example.org:7440", Identity: [32]byte{1}}} },
			Endpoints: func(string, []string) []string { return []string{"https://eu-1.example.org/"} },
			Binding:   func(context.Context) ([]byte, bool) { return session, true },
		}
	})
	r.host(t, federationtest.NewAuthority(t, "eu.example.org"))
	us, id, secret := federationtest.NewAuthority(t, "us.example.org"), token.NewID(), token.NewSecret()
	digest := secret.Digest()
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return invitations.Put(tx, id, &statev1.Invitation{
			TrustDomain: "eu.example.org", ForeignTrustDomain: "us.example.org", SecretSha256: digest[:],
			ExpireTime: timestamppb.New(time.Now().Add(time.Hour)), ForeignHomeTrustDomain: "us.example.org",
		})
	})
	require.NoError(t, err)
	accept := func(secret []byte) error {
		identity, err := memberid.LoadIdentity(filepath.Join(t.TempDir(), "identity"))
		require.NoError(t, err)
		content, err := proto.Marshal(&ententev1.AcceptInvitationContent{
			InvitationId: id, Secret: secret, InvitingTrustDomain: "eu.example.org",
			Offer: &ententev1.FederationOffer{
				TrustDomain: "us.example.org", HomeTrustDomain: "us.example.org", Bundle: us.Bundle(t, 1).Marshal(),
				Urls:             []string{"https://us-1.example.org:7443/bundles/us.example.org"},
				Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
				EndpointSpiffeId: "spiffe://us.example.org/entente/bundle-endpoint",
				PeerAddresses:    []string{"us-1.example.org:7440"}, Identities: [][]byte{identity.Digest[:]},
			},
		})
		require.NoError(t, err)
		signature, err := identity.Sign(purposeAccept, session, content)
		require.NoError(t, err)
		_, err = NewService(r.manager).AcceptInvitation(t.Context(), &ententev1.AcceptInvitationRequest{
			Content: content,
			Signed: &ententev1.IdentitySignature{
				IdentityCertificate: identity.Certificate.Certificate[0], Signature: signature,
			},
		})
		return err
	}

	require.EqualError(t, accept(secret[:]), "rpc error: code = Unavailable desc = the called member cannot write its "+
		"audit log, so it does not accept the invitation; try again, another member may be able to")
	_, found, err := relationship.Relationships.Get(r.store.View(), "us.example.org")
	require.NoError(t, err)
	require.False(t, found)

	log.Full = false
	require.ErrorContains(t, accept(make([]byte, 32)), "the other cluster has no such invitation")
	require.NoError(t, accept(secret[:]))
	require.ErrorContains(t, accept(secret[:]), "by another cluster, and can be used once")
	const line = "accept invitation us.example.org: "
	require.Equal(t, []string{line + "unknown", line + "begun", line + "done", line + "spent"}, log.Decisions())
}
