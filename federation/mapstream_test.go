package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

// awaitAttestation waits until the attestation in effect for a domain has a sequence; 0 means none.
func (r *room) awaitAttestation(t testing.TB, td string, sequence uint64) {
	t.Helper()
	until(t, "the hub attestation of "+td, func() bool { _, n := r.attestation(t, td); return n == sequence })
}

// federateWithHub creates a relationship with another site as a hub, over a stream.
func (s *site) federateWithHub(t testing.TB, hub *site, take ...string) {
	t.Helper()
	rel := spiffeRelationship(hub.home, hub.endpoint)
	rel.Peer = &ententev1.Peer{HomeTrustDomain: hub.home.TrustDomain.Name(), Addresses: []string{hub.address}}
	rel.Hub = &ententev1.Hub{Include: take}
	s.create(t, rel, hub.home.Bundle(t, 1))
}

// attest makes a hub trust a domain and attest it.
func (s *site) attest(t testing.TB, a *federationtest.Authority) *federationtest.Endpoint {
	t.Helper()
	p := federationtest.NewEndpoint(t, a, a.Bundle(t, 1))
	rel := spiffeRelationship(a, p)
	rel.Attest = true
	s.create(t, rel, a.Bundle(t, 1))
	s.refresh(t, a.TrustDomain.Name())
	return p
}

// TestHubMapIsStreamed tests that a spoke receives changes and withdrawals of a hub's attestations over the stream,
// without polling the endpoint, which serves no map here.
func TestHubMapIsStreamed(t *testing.T) {
	hub, spoke := newSite(t, "hub.example.org"), newSite(t, "spoke.example.org")
	ap, sa := federationtest.NewAuthority(t, "ap.example.org"), federationtest.NewAuthority(t, "sa.example.org")
	apPeer := hub.attest(t, ap)
	hub.attest(t, sa)
	hub.federateWith(t, spoke)
	spoke.federateWithHub(t, hub, "ap.example.org", "new.example.org")
	spoke.awaitAttestation(t, "ap.example.org", 1)
	_, n := spoke.attestation(t, "sa.example.org")
	require.Zero(t, n, "no relationship subscribes to it")
	until(t, "the stream to keep the map up to date", func() bool {
		for _, name := range spoke.shownStream(t, hub).GetConfirmed() {
			if name == "hub.example.org/bundles" {
				return true
			}
		}
		return false
	})

	// A distrust in the domain itself is one fetch of the hub's away.
	apPeer.Serve(ap.Rotated(t).Bundle(t, 2, ap))
	hub.refresh(t, "ap.example.org")
	spoke.awaitAttestation(t, "ap.example.org", 2)
	b, err := relationship.HubBundle(mustAttestation(t, spoke.room, "ap.example.org").Row.Value)
	require.NoError(t, err)
	require.True(t, b.SameKeys(hub.stored(t, "ap.example.org")))

	// The hub attests another domain.
	hub.attest(t, federationtest.NewAuthority(t, "new.example.org"))
	spoke.awaitAttestation(t, "new.example.org", 1)

	// The hub attests no more.
	_, err = hub.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: "ap.example.org",
		}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"attest"}},
	})
	require.NoError(t, err)
	spoke.awaitAttestation(t, "ap.example.org", 0)

	// The filter of the spoke can be changed while the stream is open.
	spoke.changeHub(t, "hub.example.org", &ententev1.Hub{Include: []string{"sa.example.org"}})
	spoke.awaitAttestation(t, "sa.example.org", 1)
	spoke.awaitAttestation(t, "new.example.org", 0)
}

// mapInterest reads a stream until a subscription to a map is complete, and returns its number.
func mapInterest(t testing.TB, call ententev1.PeerService_ExchangeClient) uint64 {
	t.Helper()
	for {
		m, err := call.Recv()
		require.NoError(t, err)
		if i := m.GetMessage().GetMapSubscription(); i != nil && !i.GetMore() {
			return i.GetNumber()
		}
	}
}

func mustAttestation(t testing.TB, r *room, td string) trust.Attestation {
	t.Helper()
	w, n := r.attestation(t, td)
	require.NotZero(t, n)
	return w
}

// TestHostileHubStream tests that a hub changes nothing with a rollback, an invalid bundle, or a domain that is hosted
// or not subscribed.
func TestHostileHubStream(t *testing.T) {
	spoke := newSite(t, "spoke.example.org")
	hub := federationtest.NewAuthority(t, "hub.example.org")
	endpoint := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	rel := spiffeRelationship(hub, endpoint)
	rel.Peer, rel.Hub = &ententev1.Peer{
		HomeTrustDomain: "hub.example.org",
	}, &ententev1.Hub{
		Include: []string{".example.org"},
		Exclude: []string{"secret.example.org"},
	}
	spoke.create(t, rel, hub.Bundle(t, 1))
	until(t,
		"the relationship to be read",
		func() bool { return len(spoke.manager.streams.Domains("hub.example.org")) == 1 })
	ap := federationtest.NewAuthority(t, "ap.example.org")
	entry := func(b *bundle.Bundle) *ententev1.PeerBundle {
		v, err := bundle.NewMapEntry(b)
		require.NoError(t, err)
		return &ententev1.PeerBundle{TrustDomain: b.TrustDomain().Name(), Document: v.Document}
	}
	say := func(call ententev1.PeerService_ExchangeClient, m *ententev1.PeerMapChanges) {
		m.TrustDomain, m.Subscription = "hub.example.org", 1
		_ = call.Send(
			&ententev1.ExchangeRequest{
				Message: &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapChanges{MapChanges: m}},
			},
		)
	}
	open := func() ententev1.PeerService_ExchangeClient {
		call := spoke.intrude(t, hub, "/entente/member/member-1")
		require.NoError(t, call.Send(&ententev1.ExchangeRequest{Message: federationtest.Hello("hub.example.org",
			"member-1")}))
		require.EqualValues(t, 1, mapInterest(t, call))
		return call
	}
	call := open()
	say(call, &ententev1.PeerMapChanges{Bundles: []*ententev1.PeerBundle{
		entry(ap.Bundle(t, 5)), entry(federationtest.NewAuthority(t, "secret.example.org").Bundle(t,
			1)), entry(federationtest.NewAuthority(t, "ap.else").Bundle(t, 1)),
		entry(spoke.home.Rotated(t).Bundle(t, 9)), entry(hub.Rotated(t).Bundle(t, 9)),
	}})
	spoke.awaitAttestation(t, "ap.example.org", 5)
	domains, err := newTrust().AttestedBy(spoke.store.View(), "hub.example.org"), error(nil)
	require.NoError(t, err)
	require.Equal(t, []string{"ap.example.org"}, domains)

	// A rollback: the attestation is refused, and the one before is kept and counts as stale.
	say(call, &ententev1.PeerMapChanges{Bundles: []*ententev1.PeerBundle{entry(ap.Rotated(t).Bundle(t, 4))}})
	until(t, "the refusal", func() bool {
		return mustAttestation(t, spoke.room,
			"ap.example.org").Row.Value.GetRefused() == "rollback"
	})
	_, n := spoke.attestation(t, "ap.example.org")
	require.Equal(t, uint64(5), n)

	for name, m := range map[string]*ententev1.PeerMapChanges{
		"no bundle": {Bundles: []*ententev1.PeerBundle{{TrustDomain: "ap.example.org",
			Document: []byte("garbage")}}},
		"no trust domain": {Bundles: []*ententev1.PeerBundle{{TrustDomain: "AP", Document: []byte("{}")}}},
		"one domain twice": {Bundles: []*ententev1.PeerBundle{entry(ap.Bundle(t, 6))},
			Withdrawn: []string{"ap.example.org"}},
	} {
		t.Run(name, func(t *testing.T) {
			call := open()
			say(call, m)
			termination, _ := ended(call)
			require.Equal(t, "refused_map", termination.GetReason())
		})
	}
	t.Run("more than it may have under way", func(t *testing.T) {
		call := open()
		pace := spoke.manager.streams.BudgetOf("hub.example.org")
		require.NoError(t, pace.Turn.Acquire(t.Context(), 1)) // as if something else were stored
		for range session.MapWindow + 1 {
			say(call, &ententev1.PeerMapChanges{Bundles: []*ententev1.PeerBundle{entry(ap.Bundle(t, 5))}})
		}
		termination, _ := ended(call)
		pace.Turn.Release(1)
		require.Equal(t, "flood", termination.GetReason())
	})
	t.Run("for another interest", func(t *testing.T) {
		call := open()
		m := &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapChanges{MapChanges: &ententev1.PeerMapChanges{
			TrustDomain: "hub.example.org", Subscription: 2, Bundles: []*ententev1.PeerBundle{entry(ap.Bundle(t, 9))},
			Complete: true,
		}}}
		for range 4 * session.MapWindow {
			require.NoError(t, call.Send(&ententev1.ExchangeRequest{Message: m}))
		}
		say(call, &ententev1.PeerMapChanges{Bundles: []*ententev1.PeerBundle{entry(ap.Bundle(t, 5))}})
		for taken := false; !taken; {
			m, err := call.Recv()
			require.NoError(t, err)
			taken = m.GetMessage().GetMapAcknowledgement().GetSubscription() == 1
		}
		_, n := spoke.attestation(t, "ap.example.org")
		require.EqualValues(t, 5, n)
	})
	t.Run("too much at once", func(t *testing.T) {
		call := open()
		say(call, &ententev1.PeerMapChanges{Withdrawn: make([]string, 2*session.MapChangesDomains+1)})
		termination, _ := ended(call)
		require.Equal(t, "too_many_domains", termination.GetReason())
	})
	_, n = spoke.attestation(t, "ap.example.org")
	require.Equal(t, uint64(5), n)

	// A suspended relationship accepts nothing.
	call = open()
	_, err = call.Recv() // the stream was accepted
	require.NoError(t, err)
	_, err = spoke.service.SuspendRelationship(t.Context(),
		&ententev1.SuspendRelationshipRequest{TrustDomain: "hub.example.org"})
	require.NoError(t, err)
	say(call, &ententev1.PeerMapChanges{Bundles: []*ententev1.PeerBundle{entry(ap.Bundle(t, 7))}})
	termination, _ := ended(call)
	require.Equal(t, "suspended", termination.GetReason())
	require.NotEqual(t, standing.Fresh, spoke.trust(t, "ap.example.org"))
}

// TestRefusedHubLogIsLimited tests that refused attestations are logged at the pace of one peer.
func TestRefusedHubLogIsLimited(t *testing.T) {
	o, hub := newObserver(t), federationtest.NewAuthority(t, "hub.example.org")
	o.federateWithHubOverStream(t, hub)
	o.byHub(hub)(t, o.us.Bundle(t, 5))
	o.awaitAttestation(t, "us.example.org", 5)
	past := o.us.Rotated(t).Bundle(t, 4)
	for range 2 * peer.LogBurst {
		o.byHub(hub)(t, past)
		for taken := false; !taken; {
			m, err := o.streams["hub.example.org"].Recv()
			require.NoError(t, err)
			taken = m.GetMessage().GetMapAcknowledgement() != nil
		}
	}
	lines := len(o.journal.lines("entries of a hub's map refused"))
	require.Positive(t, lines)
	require.Less(t, lines, 2*peer.LogBurst-5)
	const maps = "entente_federation_hub_maps_total"
	unchanged := o.metric(t, maps, "result", relationship.ResultUnchanged)
	stored := o.metric(t, maps, "result", relationship.ResultStored)
	require.GreaterOrEqual(t, unchanged+stored, float64(2*peer.LogBurst))
}
