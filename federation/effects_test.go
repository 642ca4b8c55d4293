package federation

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// TestEndHosted tests that the deletion of a hosted domain ends the agreements about it and no other relationship, and
// that a dry run of the deletion of a relationship deletes nothing.
func TestEndHosted(t *testing.T) {
	r := newRoom(t)
	agreed := map[string]string{
		"us.example.org": "pay.example.org", "ap.example.org": "eu.example.org", "sa.example.org": "",
	}
	for name, hosted := range agreed {
		a := federationtest.NewAuthority(t, name)
		r.create(t, spiffeRelationship(a, federationtest.NewEndpoint(t, a, a.Bundle(t, 1))), a.Bundle(t, 1))
		if hosted == "" {
			continue
		}
		_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			row, _, err := relationship.Relationships.Get(tx, name)
			if err != nil {
				return err
			}
			now := timestamppb.Now()
			row.Value.Agreement = &statev1.RelationshipAgreement{
				Id: "a1", HostedTrustDomain: hosted, ApproveTime: now, PeerApproveTime: now, Confirmed: true,
			}
			return relationship.Relationships.Put(tx, name, row.Value)
		})
		require.NoError(t, err)
	}
	shown, err := r.service.DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{
		TrustDomain: "us.example.org", DryRun: true,
	})
	require.NoError(t, err)
	want := []string{
		"relationship us.example.org: is no longer trusted: its SVIDs are refused here at once, and its bundle " +
			"is deleted",
		"peer us.example.org: no longer trusts pay.example.org: the agreement a1 ends there too, as soon as it can " +
			"be reached",
	}
	require.Equal(t, want, effectTexts(shown.GetEffects()))
	require.Len(t, relationshipNames(t, r), 3, "a dry run deletes nothing")

	var effects []*ententev1.Effect
	var done func()
	_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) (err error) {
		effects, done, err = r.manager.EndHosted(tx, spiffeid.RequireTrustDomainFromString("pay.example.org"))
		return err
	})
	require.NoError(t, err)
	done()
	require.Equal(t, want, effectTexts(effects))
	require.Equal(t, []string{"ap.example.org", "sa.example.org"}, relationshipNames(t, r))
}

func effectTexts(effects []*ententev1.Effect) (out []string) {
	for _, e := range effects {
		out = append(out, e.GetKind()+" "+e.GetSubject()+": "+e.GetDetail())
	}
	return out
}

func relationshipNames(t *testing.T, r *room) (out []string) {
	t.Helper()
	rows, err := relationship.Relationships.List(r.store.View(), "")
	require.NoError(t, err)
	for _, row := range rows {
		out = append(out, row.Key)
	}
	return out
}
