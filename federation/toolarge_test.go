package federation

import (
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/trust/standing"
)

// TestTooLargeBundle tests that a bundle that is too large is refused as a fault of the peer, from any source, and that
// the stored one stays in effect.
func TestTooLargeBundle(t *testing.T) {
	o := newObserver(t)
	o.relate(t)
	large := o.us.Large(t, 2)
	o.endpoint.Serve(large)
	require.Equal(t, "too_large", o.refresh(t, "us.example.org").GetLastResult())
	o.byStream(t, large)
	o.byStream(t, large) // the stream goes on
	o.byStream(t, o.us.Bundle(t, 3))
	o.awaitSequence(t, "us.example.org", 3)
	require.Contains(t, o.ledger.Decisions(), "refuse bundle us.example.org: too_large")
}

// TestTooLargeAttestation tests that one domain that is too large does not exclude the others, on a stream as in a map.
func TestTooLargeAttestation(t *testing.T) {
	hub, ap := federationtest.NewAuthority(t, "hub.example.org"), federationtest.NewAuthority(t, "ap.example.org")
	t.Run("over a stream", func(t *testing.T) {
		o := newObserver(t)
		rel := spiffeRelationship(hub, federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1)))
		rel.Peer, rel.Hub = &ententev1.Peer{
			HomeTrustDomain: "hub.example.org",
		}, &ententev1.Hub{
			Include: []string{".example.org"},
		}
		o.create(t, rel, hub.Bundle(t, 1))
		attest := func(all ...*bundle.Bundle) {
			changes := &ententev1.PeerMapChanges{TrustDomain: "hub.example.org"}
			for _, b := range all {
				v, err := bundle.NewMapEntry(b)
				require.NoError(t, err)
				changes.Bundles = append(changes.Bundles,
					&ententev1.PeerBundle{TrustDomain: b.TrustDomain().Name(), Document: v.Document})
			}
			o.over(t, hub, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapChanges{MapChanges: changes}})
		}
		attest(o.us.Large(t, 1), ap.Bundle(t, 1)) // us.example.org follows ap.example.org
		o.awaitAttestation(t, "ap.example.org", 1)
		attest(federationtest.NewAuthority(t, "aa.example.org").Large(t, 1), o.us.Bundle(t, 1))
		o.awaitAttestation(t, "us.example.org", 1)
		attest(o.us.Large(t, 2), ap.Bundle(t, 2))
		o.awaitAttestation(t, "ap.example.org", 2)
		until(t, "the refusal", func() bool {
			return mustAttestation(t, o.room,
				"us.example.org").Row.Value.GetRefused() == "too_large"
		})
		_, sequence := o.attestation(t, "us.example.org")
		require.EqualValues(t, 1, sequence)
		require.Equal(t, standing.Stale, o.trust(t, "us.example.org"), "the hub confirmed only an older bundle")
	})
	t.Run("in its map", func(t *testing.T) {
		r, us := newRoom(t), federationtest.NewAuthority(t, "us.example.org")
		p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
		p.ServeMap(hub.Bundle(t, 1), mapOf(t, us.Bundle(t, 1)))
		r.federateWithHub(t, hub, p, ".example.org")
		r.refresh(t, "hub.example.org")
		large := us.Large(t, 2)
		p.ServeMap(hub.Bundle(t, 1), mapOf(t, large, ap.Bundle(t, 1),
			federationtest.NewAuthority(t, "zz.example.org").Bundle(t, 1)))
		r.refresh(t, "hub.example.org")
		require.Equal(t, standing.Fresh, r.trust(t, "ap.example.org"))
		require.Equal(t, standing.Fresh, r.trust(t, "zz.example.org"))
		require.Equal(t, standing.Stale, r.trust(t, "us.example.org"))
		require.Equal(t, "too_large", r.show(t, "us.example.org").GetLastResult())
		require.EqualValues(t, 1, r.show(t, "hub.example.org").GetHubStatus().GetRefused())
		before := r.store.View().Revision()
		r.refresh(t, "hub.example.org")
		require.Equal(t, before, r.store.View().Revision(), "the same refusal again writes nothing")

		p.ServeMap(hub.Bundle(t, 1), mapOf(t, us.Bundle(t, 3)))
		r.refresh(t, "hub.example.org")
		require.Equal(t, standing.Fresh, r.trust(t, "us.example.org"))
	})
}
