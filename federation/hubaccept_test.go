package federation

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

func mapOf(t testing.TB, bundles ...*bundle.Bundle) []byte {
	t.Helper()
	document, err := bundle.MarshalMap(bundles)
	require.NoError(t, err)
	return document
}

// federateWithHub creates a relationship with a hub.
func (r *room) federateWithHub(
	t testing.TB, hub *federationtest.Authority, p *federationtest.Endpoint, include ...string,
) {
	t.Helper()
	rel := spiffeRelationship(hub, p)
	rel.Hub = &ententev1.Hub{Include: include}
	r.create(t, rel, hub.Bundle(t, 1))
}

func (r *room) trust(t testing.TB, td string) standing.State {
	t.Helper()
	trusted, err := statusOf(r.store.View(), td)
	require.NoError(t, err)
	return trusted.State
}

// attestation returns the hub attestation in effect for a domain, and its sequence or 0.
func (r *room) attestation(t testing.TB, td string) (trust.Attestation, uint64) {
	t.Helper()
	w, found, err := relationship.TrustSource().Attest(r.store.View(), td)
	require.NoError(t, err)
	if !found {
		return trust.Attestation{}, 0
	}
	b, err := relationship.HubBundle(w.Row.Value)
	require.NoError(t, err)
	n, _ := b.Sequence()
	return w, n
}

func (r *room) show(t testing.TB, td string) *ententev1.Relationship {
	t.Helper()
	out, err := r.service.GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: td})
	require.NoError(t, err)
	return out
}

func (r *room) changeHub(t testing.TB, td string, hub *ententev1.Hub) {
	t.Helper()
	_, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: td,
			Hub:         hub,
		}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"hub"}},
	})
	require.NoError(t, err)
}

// keep runs one pass of the leader.
func (r *room) keep(t testing.TB) {
	t.Helper()
	require.NoError(t, r.manager.catalog.Load(r.store.View(), func(err error) { t.Error(err) }))
	r.leader.Beat()
	r.manager.reconciler.Reconcile(t.Context(), time.Now().Add(-time.Hour))
	require.NoError(t, r.manager.catalog.Load(r.store.View(), func(err error) { t.Error(err) }))
}

func TestHubAttestationsAreFiltered(t *testing.T) {
	r := newRoom(t)
	hub := federationtest.NewAuthority(t, "hub.example.org")
	a := federationtest.NewAuthority(t, "a.example.org")
	b := federationtest.NewAuthority(t, "b.example.org")
	other := federationtest.NewAuthority(t, "bank.example")
	hosted := federationtest.NewAuthority(t, "own.example.org")
	r.host(t, hosted)
	p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, hub.Bundle(t, 1), a.Bundle(t, 5), b.Bundle(t, 7), other.Bundle(t, 1),
		hosted.Bundle(t, 99)))
	r.federateWithHub(t, hub, p, ".example.org")
	r.refresh(t, "hub.example.org")
	r.keep(t)

	require.Equal(t, standing.Fresh, r.trust(t, "a.example.org"))
	require.Equal(t, standing.Unknown, r.trust(t, "bank.example"), "it is not listed")
	_, hostedSequence := r.attestation(t, "own.example.org")
	require.Zero(t, hostedSequence, "a hosted domain is never a hub's")
	shown := r.show(t, "hub.example.org")
	require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, shown.GetHubStatus().GetFreshness())
	require.Equal(
		t,
		[]uint32{2, 0, 3},
		[]uint32{
			shown.GetHubStatus().GetAccepted(),
			shown.GetHubStatus().GetRefused(),
			shown.GetHubStatus().GetLeftOut(),
		},
	)
	list, err := r.service.ListRelationships(t.Context(), &ententev1.ListRelationshipsRequest{})
	require.NoError(t, err)
	var names []string
	for _, rel := range list.GetRelationships() {
		names = append(names, rel.GetTrustDomain()+" by "+rel.GetOriginHub())
	}
	require.Equal(t, []string{"a.example.org by hub.example.org", "b.example.org by hub.example.org",
		"hub.example.org by "}, names)
	attestation, _, err := relationship.TrustSource().Attest(r.store.View(), "a.example.org")
	require.NoError(t, err)
	versions, _ := relationship.AttestedHistory(attestation.Row.Value)
	require.Equal(t, "hub hub.example.org", versions[0].GetSource())
	require.Contains(t, r.ledger.Decisions(), "accept bundle a.example.org: done")

	// An unchanged map writes nothing.
	before := r.store.View().Revision()
	r.refresh(t, "hub.example.org")
	require.Equal(t, before, r.store.View().Revision())

	// A rollback, an update, a new domain and a withdrawn one are handled independently.
	c := federationtest.NewAuthority(t, "c.example.org")
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 4), c.Bundle(t, 1)))
	r.refresh(t, "hub.example.org")
	attested, sequence := r.attestation(t, "a.example.org")
	require.EqualValues(t, 5, sequence)
	require.Equal(t, "rollback", attested.Row.Value.GetRefused())
	require.Equal(t, standing.Stale, r.trust(t, "a.example.org"), "the hub confirmed only an older bundle")
	require.Equal(t, "rollback", r.show(t, "a.example.org").GetLastResult())
	require.Equal(t, standing.Unknown, r.trust(t, "b.example.org"))
	require.Equal(t, standing.Fresh, r.trust(t, "c.example.org"))
	require.EqualValues(t, 1, r.show(t, "hub.example.org").GetHubStatus().GetRefused())
	require.Contains(t, r.ledger.Decisions(), "refuse bundle a.example.org: rollback")
	require.Contains(t, r.ledger.Decisions(), "withdraw bundle b.example.org: done")
	before = r.store.View().Revision()
	r.refresh(t, "hub.example.org")
	require.Equal(t, before, r.store.View().Revision(), "the same refusal again writes nothing")

	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 5), c.Bundle(t, 1)))
	r.refresh(t, "hub.example.org")
	require.Equal(t, standing.Fresh, r.trust(t, "a.example.org"))
}

func TestDeletedHubRemovesAttestations(t *testing.T) {
	r := newRoom(t)
	hub := federationtest.NewAuthority(t, "hub.example.org")
	a := federationtest.NewAuthority(t, "a.example.org")
	b := federationtest.NewAuthority(t, "b.example.org")
	p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 5), b.Bundle(t, 7)))
	r.federateWithHub(t, hub, p, ".example.org")
	r.refresh(t, "hub.example.org")

	_, err := r.service.SuspendRelationship(t.Context(),
		&ententev1.SuspendRelationshipRequest{TrustDomain: "hub.example.org"})
	require.NoError(t, err)
	require.Equal(t, standing.Suspended, r.trust(t, "a.example.org"))
	r.keep(t)
	_, err = r.service.ResumeRelationship(t.Context(),
		&ententev1.ResumeRelationshipRequest{TrustDomain: "hub.example.org"})
	require.NoError(t, err)
	require.Equal(t, standing.Fresh, r.trust(t, "a.example.org"), "the attestation of a suspended hub is kept")

	r.changeHub(t, "hub.example.org", &ententev1.Hub{Include: []string{".example.org"},
		Exclude: []string{"a.example.org"}})
	require.Equal(t, standing.Unknown, r.trust(t, "a.example.org"), "at once, before it is swept")
	require.Equal(t, standing.Fresh, r.trust(t, "b.example.org"))
	r.keep(t)
	_, found, err := relationship.HubBundles.Get(r.store.View(), "a.example.org/hub.example.org")
	require.NoError(t, err)
	require.False(t, found)

	_, err = r.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "b.example.org"})
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "federation update hub.example.org --hub-exclude b.example.org")
	_, err = r.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "hub.example.org"})
	require.NoError(t, err)
	require.Equal(t, standing.Unknown, r.trust(t, "b.example.org"))

	// An attestation that the hub does not repeat does not count under the next relationship.
	p.ServeMap(hub.Bundle(t, 1), []byte(`{"trust_domains":{}}`))
	r.federateWithHub(t, hub, p, ".example.org")
	require.Equal(t, standing.Unknown, r.trust(t, "b.example.org"))
	r.keep(t)
	rows, err := relationship.HubBundles.List(r.store.View(), "")
	require.NoError(t, err)
	require.Empty(t, rows)
}

func TestOwnBundleTakesPrecedence(t *testing.T) {
	r := newRoom(t)
	hub, a := federationtest.NewAuthority(t, "hub.example.org"), federationtest.NewAuthority(t, "a.example.org")
	p, own := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1)), federationtest.NewEndpoint(t, a, a.Bundle(t, 3))
	forged := a.Rotated(t)
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, forged.Bundle(t, 1<<60)))
	r.federateWithHub(t, hub, p, ".example.org")
	r.refresh(t, "hub.example.org")
	require.Equal(t, standing.Fresh, r.trust(t, "a.example.org"))

	r.create(t, spiffeRelationship(a, own), a.Bundle(t, 3))
	require.Empty(t, r.refresh(t, "a.example.org").GetLastError(),
		"the hub's sequence is not compared with the domain's")
	require.True(t, r.stored(t, "a.example.org").SameKeys(a.Bundle(t, 3)))
	require.Empty(t, r.show(t, "a.example.org").GetOriginHub())
	require.Empty(t, r.show(t, "a.example.org").GetAlarms())

	// The hub attests other keys under the domain's sequence.
	r.changeHub(t, "hub.example.org", &ententev1.Hub{Include: []string{"a.example.org"}})
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, forged.Bundle(t, 1<<60+1)))
	r.refresh(t, "hub.example.org")
	require.Empty(t, r.show(t, "a.example.org").GetAlarms(), "another sequence is no contradiction")
	_, err := r.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "a.example.org"})
	require.ErrorContains(t, err, "add --to-hub")
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, forged.Bundle(t, 3)))
	r.refresh(t, "hub.example.org")
	alarms := r.show(t, "a.example.org").GetAlarms()
	require.Len(t, alarms, 1)
	require.Equal(t, relationship.AlarmSplitView, alarms[0].GetName())
	require.Contains(t, alarms[0].GetDetail(), "hub hub.example.org")
	require.True(t, r.stored(t, "a.example.org").SameKeys(a.Bundle(t, 3)))

	_, err = r.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "a.example.org", ToHub: true})
	require.NoError(t, err)
	require.Equal(t, "hub.example.org", r.show(t, "a.example.org").GetOriginHub())
}

func TestTwoHubs(t *testing.T) {
	r := newRoom(t)
	first := federationtest.NewAuthority(t, "hub1.example.org")
	second := federationtest.NewAuthority(t, "hub2.example.org")
	a := federationtest.NewAuthority(t, "a.example.org")
	p1, p2 := federationtest.NewEndpoint(t, first, first.Bundle(t, 1)), federationtest.NewEndpoint(t, second,
		second.Bundle(t, 1))
	p1.ServeMap(first.Bundle(t, 1), mapOf(t, a.Bundle(t, 5)))
	p2.ServeMap(second.Bundle(t, 1), mapOf(t, a.Rotated(t).Bundle(t, 5)))
	r.federateWithHub(t, second, p2, "a.example.org")
	r.refresh(t, "hub2.example.org")
	r.federateWithHub(t, first, p1, "a.example.org")
	r.refresh(t, "hub1.example.org")
	shown := r.show(t, "a.example.org")
	require.Equal(t, "hub1.example.org", shown.GetOriginHub(), "the first by name, regardless of the order of arrival")
	require.Equal(t, []string{"hub2.example.org"}, shown.GetOtherHubs())
	require.Len(t, shown.GetAlarms(), 1)
	require.Equal(t, relationship.AlarmSplitView, shown.GetAlarms()[0].GetName())

	p1.ServeMap(first.Bundle(t, 1), []byte(`{"trust_domains":{}}`))
	r.refresh(t, "hub1.example.org")
	require.Equal(t, "hub2.example.org", r.show(t, "a.example.org").GetOriginHub(),
		"the other hub's attestation counts then, without a gap")
}

func TestFreshnessOfAttestation(t *testing.T) {
	now := time.Now()
	r := newRoom(t, func(c *Config) { c.Now = func() time.Time { return now }; c.Client.Now = time.Now })
	hub, a := federationtest.NewAuthority(t, "hub.example.org"), federationtest.NewAuthority(t, "a.example.org")
	p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 5)))
	r.federateWithHub(t, hub, p, ".example.org")
	r.refresh(t, "hub.example.org")
	r.keep(t)
	require.Equal(t, standing.Fresh, r.trust(t, "a.example.org"))
	now = now.Add(4 * relationship.DefaultRefresh)
	r.manager.reconciler.Reconcile(t.Context(), now.Add(-time.Hour))
	require.Equal(t, standing.Stale, r.trust(t, "a.example.org"))
	now = now.Add(time.Hour)
	r.keep(t)
	require.Equal(t, standing.Expired, r.trust(t, "a.example.org"), "its last authority has")
}

func TestBrokenMapIsRejectedWhole(t *testing.T) {
	r := newRoom(t)
	hub := federationtest.NewAuthority(t, "hub.example.org")
	a := federationtest.NewAuthority(t, "a.example.org")
	b := federationtest.NewAuthority(t, "b.example.org")
	p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	good := string(mapOf(t, a.Bundle(t, 5)))
	p.ServeMap(hub.Bundle(t, 1), []byte(good))
	r.federateWithHub(t, hub, p, ".example.org")
	r.refresh(t, "hub.example.org")
	document := string(b.Bundle(t, 1).Marshal())
	begun := `{"trust_domains":{"b.example.org":` + document
	million := []byte(`{"trust_domains":{"x.example.org":{"keys":[]}`)
	for _, name := range federationtest.Names(bundle.MaxMapDomains+1, "example.org") {
		million = append(million, `,"`+name+`":{"keys":[]}`...)
	}
	for name, test := range map[string]struct {
		document []byte
		result   string
	}{
		"cut off":        {[]byte(begun), "malformed"},
		"a name twice":   {[]byte(begun + `,"b.example.org":` + document + `}}`), "duplicate_name"},
		"a bad bundle":   {[]byte(begun + `,"bank.example":{"keys":1}}}`), "malformed"},
		"a bad name":     {[]byte(begun + `,"B":{"keys":[]}}}`), "bad_trust_domain"},
		"too many":       {append(million, "}}"...), "too_large"},
		"no map":         {[]byte(document), "no_trust_domains"},
		"the same again": {mapOf(t, a.Bundle(t, 5)), "unchanged"},
	} {
		t.Run(name, func(t *testing.T) {
			p.ServeMap(hub.Bundle(t, 1), test.document)
			r.refresh(t, "hub.example.org")
			require.Equal(t, test.result, r.show(t, "hub.example.org").GetHubStatus().GetLastResult())
			require.Equal(t, standing.Unknown, r.trust(t, "b.example.org"), "nothing of it")
			require.Equal(t, standing.Fresh, r.trust(t, "a.example.org"), "and what was taken is kept")
		})
	}
	p.Handle(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/bundles" {
			http.Error(w, good, http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(hub.Bundle(t, 1).Marshal())
	})
	require.Empty(t, r.refresh(t, "hub.example.org").GetLastError(), "the hub's own bundle is another matter")
	require.Equal(t, "bad_status", r.show(t, "hub.example.org").GetHubStatus().GetLastResult())
}

func TestLargeMapIsReadInParts(t *testing.T) {
	r := newRoom(t)
	hub := federationtest.NewAuthority(t, "hub.example.org")
	all := []*bundle.Bundle{}
	for _, name := range federationtest.Names(150, "example.org") {
		a := federationtest.NewAuthority(t, name)
		others := []*federationtest.Authority{}
		for range 40 {
			others = append(others, a.Rotated(t))
		}
		all = append(all, a.Bundle(t, 1, others...)) // about 40 KiB each, too much for one reading
	}
	p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, all...))
	r.federateWithHub(t, hub, p, ".example.org")
	r.refresh(t, "hub.example.org")
	brought, err := newTrust().AttestedBy(r.store.View(), "hub.example.org"), error(nil)
	require.NoError(t, err)
	require.Len(t, brought, len(all))
	require.Greater(t, len(p.Received), 2, "in more than one reading")
}

func TestAttestationsSurviveRestore(t *testing.T) {
	r := newRoom(t)
	hub := federationtest.NewAuthority(t, "hub.example.org")
	a := federationtest.NewAuthority(t, "a.example.org")
	c := federationtest.NewAuthority(t, "c.example.org")
	p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 5), c.Bundle(t, 5)))
	r.federateWithHub(t, hub, p, ".example.org")
	r.refresh(t, "hub.example.org")
	snapshot := r.store.View()
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 6)))
	r.refresh(t, "hub.example.org")
	before := r.store.View()
	_, sequence := r.attestation(t, "c.example.org")
	require.Zero(t, sequence, "the hub has withdrawn it")
	restore := func(before *raftstore.View) {
		t.Helper()
		_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			for row, err := range relationship.HubBundles.All(snapshot, "") {
				if err := errors.Join(err, relationship.HubBundles.Put(tx, row.Key, row.Value)); err != nil {
					return err
				}
			}
			for row, err := range relationship.Relationships.All(snapshot, "") {
				if err := errors.Join(err, relationship.Relationships.Put(tx, row.Key, row.Value)); err != nil {
					return err
				}
			}
			return surviveRestore(before, snapshot, tx)
		})
		require.NoError(t, err)
	}
	restore(before)
	_, sequence = r.attestation(t, "a.example.org")
	require.EqualValues(t, 6, sequence, "older keys may have been revoked since")
	_, sequence = r.attestation(t, "c.example.org")
	require.Zero(t, sequence, "a withdrawn attestation does not come back")

	r.deleteHub(t, "hub.example.org")
	restore(r.store.View())
	_, sequence = r.attestation(t, "c.example.org")
	require.EqualValues(t, 5, sequence, "the relationship comes back as the snapshot has it")
}
