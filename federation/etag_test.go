package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// TestEtag: an etag moves with what clients set. A call with an earlier one changes nothing.
func TestEtag(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	r.create(t, spiffeRelationship(us, federationtest.NewEndpoint(t, us, us.Bundle(t, 1))), us.Bundle(t, 1))
	get := func() string {
		rel, err := r.service.GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{
			TrustDomain: "us.example.org",
		})
		require.NoError(t, err)
		return rel.GetEtag()
	}
	update := func(change func(*ententev1.UpdateRelationshipRequest)) error {
		req := &ententev1.UpdateRelationshipRequest{
			Relationship: &ententev1.Relationship{TrustDomain: "us.example.org"},
			UpdateMask:   &fieldmaskpb.FieldMask{},
		}
		change(req)
		_, err := r.service.UpdateRelationship(t.Context(), req)
		return err
	}
	poll := func(every time.Duration, etag string) error {
		return update(func(req *ententev1.UpdateRelationshipRequest) {
			req.Relationship.PollInterval = durationpb.New(every)
			req.UpdateMask.Paths, req.Etag = []string{"poll_interval"}, etag
		})
	}
	seen := []string{get()}
	moved := func(title string, err error) {
		t.Helper()
		require.NoError(t, err, title)
		require.NotContains(t, seen, get(), title)
		seen = append(seen, get())
	}
	moved("a setting", poll(time.Minute, get()))
	revision := r.store.View().Revision()
	require.NoError(t, poll(time.Minute, ""))
	require.Equal(t, seen[len(seen)-1], get(), "equal values")
	require.Equal(t, revision, r.store.View().Revision(), "equal values were written")
	moved("a bundle", update(func(req *ententev1.UpdateRelationshipRequest) {
		req.BootstrapBundle = us.Rotated(t).Bundle(t, 9).Marshal()
	}))
	_, err := r.service.SuspendRelationship(t.Context(),
		&ententev1.SuspendRelationshipRequest{TrustDomain: "us.example.org"})
	moved("a suspension", err)
	_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		row, _, err := relationship.Relationships.Get(tx, "us.example.org")
		require.NoError(t, err)
		row.Value.Validity = &statev1.RelationshipValidity{Freshness: int32(ententev1.Freshness_FRESHNESS_STALE)}
		row.Value.Alarms = []*statev1.RelationshipAlarm{{Name: "split_view"}}
		return relationship.Relationships.Put(tx, "us.example.org", row.Value)
	})
	require.NoError(t, err)
	require.Equal(t, seen[len(seen)-1], get(), "freshness and alarms")

	text := "the relationship with us.example.org was changed since it was read: the request is for generation " +
		seen[0] + ", and it is in generation " + get() + "; read it again, and repeat the change with its new etag"
	refused(t, poll(time.Hour, seen[0]), codes.Aborted, text)
	for _, dry := range []bool{true, false} {
		_, err = r.service.DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{
			TrustDomain: "us.example.org", Etag: seen[0], DryRun: dry,
		})
		refused(t, err, codes.Aborted, text)
	}
	moved("without an etag", poll(time.Hour, ""))
	_, err = r.service.DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{
		TrustDomain: "us.example.org", Etag: get(),
	})
	require.NoError(t, err)
}

// TestEtagOfAnAgreement: the other side's consent, its members and its end are not a client's change. Addresses that
// follow it are, because a client sets them too.
func TestEtagOfAnAgreement(t *testing.T) {
	r, some := newRoom(t), timestamppb.New(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	const name = "us.example.org"
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		row := &statev1.Relationship{
			TrustDomain: name, Url: "https://a.example.org/",
			Agreement: &statev1.RelationshipAgreement{Id: "used"},
		}
		relationship.New(tx, row)
		return relationship.Relationships.Put(tx, name, row)
	})
	require.NoError(t, err)
	row := func() *statev1.Relationship {
		row, _, err := relationship.Relationships.Get(r.store.View(), name)
		require.NoError(t, err)
		return row.Value
	}
	for _, c := range []struct {
		title         string
		change        func(*statev1.Relationship)
		moves, fetchs bool
	}{
		{"its approval", func(r *statev1.Relationship) { r.Agreement.PeerApproveTime = some }, false, false},
		{"this side's", func(r *statev1.Relationship) { r.Agreement.ApproveTime = some }, true, true},
		{"its members", func(r *statev1.Relationship) { r.Agreement.Identities = [][]byte{{1}} }, false, false},
		{"pending", func(r *statev1.Relationship) { r.Agreement.PendingUrls = []string{"https://b/"} }, false, false},
		{"its URLs", func(r *statev1.Relationship) { r.Url = "https://a.example.org/two" }, true, true},
		{"its end", func(r *statev1.Relationship) { r.Agreement.EndTime = some }, false, true},
	} {
		was := row()
		_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			_, err := relationship.UpdateAgreement(tx, name, "used", func(r *statev1.Relationship) bool {
				c.change(r)
				return true
			})
			return err
		})
		require.NoError(t, err)
		require.Equal(t, c.moves, relationship.Etag(was) != relationship.Etag(row()), c.title)
		require.Equal(t, c.fetchs, was.GetGeneration() != row().GetGeneration(), c.title)
	}
}

// TestEtagSurvivesRestore: after a restore an equal etag still means equal settings.
func TestEtagSurvivesRestore(t *testing.T) {
	const name = "us.example.org"
	at := func(generation uint64, change func(*statev1.Relationship)) *statev1.Relationship {
		row := &statev1.Relationship{
			TrustDomain: name, Url: "https://a.example.org/", Generation: generation, SettingsGeneration: generation,
		}
		change(row)
		return row
	}
	none := func(*statev1.Relationship) {}
	moved := func(r *statev1.Relationship) { r.Url = "https://b.example.org/" }
	suspended := func(r *statev1.Relationship) { r.Suspended = true }
	stale := func(r *statev1.Relationship) { r.Validity = &statev1.RelationshipValidity{X509Expired: true} }
	for title, c := range map[string]struct {
		snapshot, before *statev1.Relationship
		want             func(uint64) bool
	}{
		"nothing changed":       {at(3, none), at(3, none), func(g uint64) bool { return g == 3 }},
		"the standing changed":  {at(3, none), at(3, stale), func(g uint64) bool { return g == 3 }},
		"there and back":        {at(3, none), at(5, none), func(g uint64) bool { return g == 5 }},
		"a setting changed":     {at(3, none), at(4, moved), func(g uint64) bool { return g == 3 }},
		"suspended since":       {at(3, none), at(4, suspended), func(g uint64) bool { return g == 4 }},
		"changed and suspended": {at(3, moved), at(4, suspended), func(g uint64) bool { return g > 4 }},
	} {
		t.Run(title, func(t *testing.T) {
			r := newRoom(t)
			put := func(row *statev1.Relationship) *raftstore.View {
				_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
					return relationship.Relationships.Put(tx, name, proto.CloneOf(row))
				})
				require.NoError(t, err)
				return r.store.View()
			}
			before := put(c.before)
			restored := put(c.snapshot)
			_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
				return surviveRestore(before, restored, tx)
			})
			require.NoError(t, err)
			row, _, err := relationship.Relationships.Get(r.store.View(), name)
			require.NoError(t, err)
			require.True(t, c.want(row.Value.GetSettingsGeneration()), "%d", row.Value.GetSettingsGeneration())
		})
	}
}
