package federation

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// TestUnchangedMapsAreNotRead tests that a map is read whole only if it, or what was stored from it, has changed.
func TestUnchangedMapsAreNotRead(t *testing.T) {
	r := newRoom(t)
	first := federationtest.NewAuthority(t, "hub1.example.org")
	second := federationtest.NewAuthority(t, "hub2.example.org")
	a, b := federationtest.NewAuthority(t, "a.example.org"), federationtest.NewAuthority(t, "b.example.org")
	p1, p2 := federationtest.NewEndpoint(t, first, first.Bundle(t, 1)), federationtest.NewEndpoint(t, second,
		second.Bundle(t, 1))
	whole := p1.ServeTaggedMap(first.Bundle(t, 1), "one", mapOf(t, a.Bundle(t, 5)))
	p2.ServeTaggedMap(second.Bundle(t, 1), "two", mapOf(t, b.Bundle(t, 5)))
	r.federateWithHub(t, first, p1, ".example.org")
	r.federateWithHub(t, second, p2, ".example.org")
	r.refresh(t, "hub1.example.org")
	r.refresh(t, "hub2.example.org")
	before := *whole
	require.Positive(t, before)

	p2.ServeTaggedMap(second.Bundle(t, 1), "three", mapOf(t, b.Bundle(t, 6)))
	r.refresh(t, "hub2.example.org")
	_, sequence := r.attestation(t, "b.example.org")
	require.EqualValues(t, 6, sequence)
	r.refresh(t, "hub1.example.org")
	require.Equal(t, before, *whole, "nothing changed about this hub")

	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return relationship.HubBundles.Delete(tx, relationship.AttestationKey("a.example.org", "hub1.example.org"))
	})
	require.NoError(t, err)
	r.refresh(t, "hub1.example.org")
	require.Equal(t, before+1, *whole, "what was taken is gone")
	_, sequence = r.attestation(t, "a.example.org")
	require.EqualValues(t, 5, sequence)
}
