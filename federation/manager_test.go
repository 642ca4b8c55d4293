package federation

import (
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust/standing"
)

// TestManagerFollowsPeer tests that the manager fetches a new relationship at once, polls at its refresh hint, keeps
// the last good bundle through an outage, and continues after it.
func TestManagerFollowsPeer(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.run(t)
	us := federationtest.NewAuthority(t, "us.example.org").Every(time.Second)
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 2))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
	r.awaitSequence(t, "us.example.org", 2)

	// The peer rotates: its next bundle has both authorities, and the one after that only the new one, which now signs.
	next := us.Rotated(t)
	p.Serve(next.Bundle(t, 3, us))
	r.awaitSequence(t, "us.example.org", 3)
	p.Present(t, next)
	p.Serve(next.Bundle(t, 4))
	r.awaitSequence(t, "us.example.org", 4)
	r.awaitState(t, "us.example.org", standing.Fresh)

	// An outage: nothing is lost, and it is shown as stale after three intervals.
	p.Handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	r.awaitState(t, "us.example.org", standing.Stale)
	require.True(t, r.stored(t, "us.example.org").Equal(next.Bundle(t, 4)))
	shown, err := r.service.GetRelationship(t.Context(),
		&ententev1.GetRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	require.Equal(t, ententev1.Freshness_FRESHNESS_STALE, shown.GetFreshness())
	require.Equal(t, "bad_status", shown.GetLastResult())
	require.Contains(t, shown.GetLastError(), "503 Service Unavailable")
	require.NotNil(t, shown.GetNextAttemptTime())

	// It ends with an unchanged bundle: the success alone makes it fresh again.
	before := relationship.ForeignBundles.PrefixRevision(r.store.View(), "")
	p.Serve(next.Bundle(t, 4))
	r.awaitState(t, "us.example.org", standing.Fresh)
	require.Equal(t, before, relationship.ForeignBundles.PrefixRevision(r.store.View(), ""))
	require.InDelta(t, 1, federationtest.Metric(t, r.registry, "entente_federation_polls_owned"), 0)
}

// TestBootstrapIsNoSuccess tests that a bundle that an operator brought is no success, until the endpoint confirms it:
// the leader then records that, although the bundle is the same.
func TestBootstrapIsNoSuccess(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org").Every(time.Second)
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
	created := r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
	require.Equal(t, ententev1.Freshness_FRESHNESS_BOOTSTRAP, created.GetFreshness())
	require.Nil(t, created.GetLastSuccessTime())
	r.run(t)
	r.await(t, "the first success", func(v *raftstore.View) bool {
		row, _, err := relationship.Relationships.Get(v, "us.example.org")
		require.NoError(t, err)
		return !row.Value.GetValidity().GetBootstrap()
	})
	shown, err := r.service.GetRelationship(t.Context(),
		&ententev1.GetRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	require.NotNil(t, shown.GetLastSuccessTime())

	// Another bundle of the operator is no success either.
	p.Close()
	changed, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship:    &ententev1.Relationship{TrustDomain: "us.example.org"},
		BootstrapBundle: us.Bundle(t, 2).Marshal(),
	})
	require.NoError(t, err)
	require.Equal(t, ententev1.Freshness_FRESHNESS_BOOTSTRAP, changed.GetFreshness())
	require.Nil(t, changed.GetLastSuccessTime())
}

// TestManagerAppliesChanges tests that an update is applied at once, and that neither a suspended nor a deleted
// relationship is fetched.
func TestManagerAppliesChanges(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.run(t)
	us := federationtest.NewAuthority(t, "us.example.org").Every(time.Hour)
	first, second := federationtest.NewEndpoint(t, us, us.Bundle(t, 1)), federationtest.NewEndpoint(t, us,
		us.Bundle(t, 2))
	r.create(t, spiffeRelationship(us, first), us.Bundle(t, 1))
	first.AwaitRequest(t)
	_, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: "us.example.org",
			Url:         second.URL,
		}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"url"}},
	})
	require.NoError(t, err)
	r.awaitSequence(t, "us.example.org", 2)

	_, err = r.service.SuspendRelationship(t.Context(),
		&ententev1.SuspendRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	second.Serve(us.Bundle(t, 3))
	_, err = r.service.ResumeRelationship(t.Context(),
		&ententev1.ResumeRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	r.awaitSequence(t, "us.example.org", 3)

	_, err = r.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	count, err := testutil.GatherAndCount(r.registry, "entente_federation_bundle_sequence")
	require.NoError(t, err)
	require.LessOrEqual(t, count, 1)
	require.Nil(t, r.stored(t, "us.example.org"))
}

// TestExpiry tests that the leader records the expiry of the last authority without any fetch.
func TestExpiry(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.run(t)
	us := federationtest.NewAuthorityUntil(t, "us.example.org", time.Now().Add(2*time.Second)).Every(time.Hour)
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
	r.awaitState(t, "us.example.org", standing.Expired)
	require.NotNil(t, r.stored(t, "us.example.org"))
	trusted, err := statusOf(r.store.View(), "us.example.org")
	require.NoError(t, err)
	require.Equal(t, standing.StatusOf(standing.Expired), trusted)
}

// TestFreshnessAfterLeaderChange tests that a new leader without reports marks no relationship as stale within three
// intervals, and no stale one as fresh.
func TestFreshnessAfterLeaderChange(t *testing.T) {
	now := time.Now()
	r := newRoom(t, func(c *Config) { c.Now = func() time.Time { return now } })
	us := federationtest.NewAuthorityUntil(t, "us.example.org", now.Add(1000*time.Hour)).Every(time.Minute)
	r.create(t, &ententev1.Relationship{
		TrustDomain: "us.example.org", Url: "https://127.0.0.1:1/",
		Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
		EndpointSpiffeId: us.EndpointID().String(),
	}, us.Bundle(t, 1))
	look := func(leading time.Time) []transition {
		require.NoError(t, r.manager.catalog.Load(r.store.View(), func(err error) { t.Error(err) }))
		return r.manager.freshness.queue(leading).judge()
	}
	states := func(found []transition) (out []standing.State) {
		for _, f := range found {
			out = append(out, f.is.State)
		}
		return out
	}
	created := now
	now = created.Add(10 * time.Hour)
	require.Empty(t, look(now), "the new leader has no reports yet")
	now = now.Add(3 * time.Minute)
	require.Empty(t, look(created.Add(10*time.Hour)), "three intervals to the moment")
	now = now.Add(time.Second)
	found := look(created.Add(10 * time.Hour))
	require.Equal(t, []standing.State{standing.Stale}, states(found))
	r.manager.freshness.commit(t.Context(), found)
	require.Empty(t, look(now), "stale stays stale under the next leader")

	// The report of a success makes it fresh.
	owner := observation.New(r.manager.now)
	owner.Attempted("us.example.org", 1, now, true, "unchanged", "")
	r.manager.Section().Deliver("member-1", owner.Collect(false))
	found = look(now)
	require.Equal(t, []standing.State{standing.Fresh}, states(found))

	// A result is written only if it is still true.
	_, err := r.service.SuspendRelationship(t.Context(),
		&ententev1.SuspendRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	before := r.store.View().Revision()
	r.manager.freshness.commit(t.Context(), found)
	require.Equal(t, before, r.store.View().Revision())
	require.Empty(t, look(now), "a suspended one is not judged")
}

func TestSurviveRestore(t *testing.T) {
	r := newRoom(t)
	us, ap := federationtest.NewAuthority(t, "us.example.org"), federationtest.NewAuthority(t, "ap.example.org")
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
	rel := func(a *federationtest.Authority) *ententev1.Relationship { return spiffeRelationship(a, p) }
	r.create(t, rel(us), us.Bundle(t, 1))
	r.create(t, rel(ap), ap.Bundle(t, 1))
	snapshot := r.store.View()
	_, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: "us.example.org",
		}, BootstrapBundle: us.Rotated(t).Bundle(t, 9).Marshal(),
	})
	require.NoError(t, err)
	_, err = r.service.SuspendRelationship(t.Context(),
		&ententev1.SuspendRelationshipRequest{TrustDomain: "ap.example.org"})
	require.NoError(t, err)
	before := r.store.View()
	// The transaction starts from the current state, not from the snapshot, but must write the same.
	_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) error { return surviveRestore(before, snapshot, tx) })
	require.NoError(t, err)
	sequence, _ := r.stored(t, "us.example.org").Sequence()
	require.EqualValues(t, 9, sequence, "bundles do not go back")
	trusted, err := statusOf(r.store.View(), "ap.example.org")
	require.NoError(t, err)
	require.Equal(t, standing.Suspended, trusted.State, "a suspension stays")
}
