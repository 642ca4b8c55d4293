package relationship_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// TestGetAndDelete: what an operator is shown of a domain, and whether its relationship can be deleted, follow from
// what counts for the domain.
func TestGetAndDelete(t *testing.T) {
	store := raftstoretest.New(t)
	sources := federationtest.Trust(relationship.TrustSource()).Sources
	agreed := timestamppb.New(time.Now())
	_, err := store.Update(t.Context(), func(tx *raftstore.Tx) error {
		hub := &statev1.RelationshipHub{Include: []string{".example.org"}}
		for _, row := range []*statev1.Relationship{
			{TrustDomain: "hub.test", CreateTime: agreed, Hub: hub},
			{TrustDomain: "foreign.example.org"},
			{TrustDomain: "both.example.org"},
		} {
			if err := relationship.Relationships.Put(tx, row.GetTrustDomain(), row); err != nil {
				return err
			}
		}
		for _, td := range []string{"hosted.example.org", "both.example.org", "attested.example.org"} {
			key := relationship.AttestationKey(td, "hub.test")
			row := &statev1.HubBundle{TrustDomain: td, Hub: "hub.test", RelationshipCreateTime: agreed}
			if err := relationship.HubBundles.Put(tx, key, row); err != nil {
				return err
			}
		}
		return federationtest.HostedBundles.Put(tx, "hosted.example.org", &statev1.Bundle{})
	})
	require.NoError(t, err)

	for name, want := range map[string]struct {
		get, deleted, deletedToHub string
	}{
		"foreign.example.org": {},
		"both.example.org": {deleted: "rpc error: code = FailedPrecondition desc = the hub hub.test attests " +
			"both.example.org too, and both.example.org would be trusted by its attestation from then on; if that is " +
			"intended, add --to-hub, else end it first with `entente federation update hub.test --hub-exclude " +
			"both.example.org`"},
		"attested.example.org": {get: "rpc error: code = FailedPrecondition desc = attested.example.org is trusted " +
			"by an attestation of the hub hub.test and has no relationship of its own; `entente federation update " +
			"hub.test --hub-exclude attested.example.org` ends that, and `entente federation create " +
			"attested.example.org` creates one"},
		"hosted.example.org": {get: "rpc error: code = NotFound desc = there is no relationship with " +
			"\"hosted.example.org\"; `entente federation list` shows all"},
		"unknown.example.org": {get: "rpc error: code = NotFound desc = there is no relationship with " +
			"\"unknown.example.org\"; `entente federation list` shows all"},
	} {
		t.Run(name, func(t *testing.T) {
			row, err := relationship.Get(sources, store.View(), name)
			requireRefusal(t, want.get, err)
			if want.get == "" {
				require.Equal(t, name, row.GetTrustDomain())
			} else {
				want.deleted, want.deletedToHub = want.get, want.get
			}
			remove := func(toHub bool) error {
				_, err := store.Update(t.Context(), func(tx *raftstore.Tx) error {
					return relationship.Delete(sources, tx, name, toHub)
				})
				return err
			}
			err = remove(false)
			requireRefusal(t, want.deleted, err)
			if err != nil {
				requireRefusal(t, want.deletedToHub, remove(true))
			}
			_, found, err := relationship.Relationships.Get(store.View(), name)
			require.NoError(t, err)
			require.False(t, found)
		})
	}
}

func requireRefusal(t *testing.T, want string, err error) {
	t.Helper()
	if want == "" {
		require.NoError(t, err)
		return
	}
	require.EqualError(t, err, want)
}
