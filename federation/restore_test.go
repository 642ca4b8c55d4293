package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// TestConsentsSurviveRestore tests that a restore takes back no consent and no end of an agreement.
func TestConsentsSurviveRestore(t *testing.T) {
	r, some := newRoom(t), timestamppb.New(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	row := func(end *timestamppb.Timestamp) *statev1.Relationship {
		return &statev1.Relationship{TrustDomain: "us.example.org", Agreement: &statev1.RelationshipAgreement{
			Id: "used", ApproveTime: some, PeerApproveTime: some, EndTime: end,
		}}
	}
	put := func(end *timestamppb.Timestamp) *raftstore.View {
		_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			return relationship.Relationships.Put(tx, "us.example.org", row(end))
		})
		require.NoError(t, err)
		return r.store.View()
	}
	restored := put(nil)
	before := put(some)
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		if err := relationship.Relationships.Put(tx, "us.example.org", row(nil)); err != nil { // as a restore does
			return err
		}
		return surviveRestore(before, restored, tx)
	})
	require.NoError(t, err)
	is, err := relationship.Get(newTrust().Sources, r.store.View(), "us.example.org")
	require.NoError(t, err)
	require.Equal(t, ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED, relationship.StateOf(is))
}
