package federation

import (
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/trust/standing"
)

// deleteHub deletes the relationship with a hub, without a pass of the leader before the next one is created.
func (r *room) deleteHub(t testing.TB, td string) {
	t.Helper()
	_, err := r.service.DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{TrustDomain: td})
	require.NoError(t, err)
}

// TestRecreatedHubStartsEmpty tests that attestations under a deleted relationship do not count under a new one, before
// and after they are swept, and do not affect new attestations.
func TestRecreatedHubStartsEmpty(t *testing.T) {
	r := newRoom(t)
	hub := federationtest.NewAuthority(t, "hub.example.org")
	a := federationtest.NewAuthority(t, "a.example.org")
	b := federationtest.NewAuthority(t, "b.example.org")
	c := federationtest.NewAuthority(t, "c.example.org")
	p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 5), b.Bundle(t, 5), c.Bundle(t, 5)))
	r.federateWithHub(t, hub, p, ".example.org")
	r.refresh(t, "hub.example.org")
	require.Equal(t, standing.Fresh, r.trust(t, "a.example.org"))

	r.deleteHub(t, "hub.example.org")
	rotated := b.Rotated(t)
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 5), rotated.Bundle(t, 4)))
	r.federateWithHub(t, hub, p, ".example.org")
	for _, td := range []string{"a.example.org", "b.example.org", "c.example.org"} {
		require.Equal(t, standing.Unknown, r.trust(t, td))
	}
	r.refresh(t, "hub.example.org")
	for range 2 { // before and after the sweep
		attested, n := r.attestation(t, "a.example.org")
		require.EqualValues(t, 5, n, "the same attestation again")
		require.Empty(t, attested.Row.Value.GetRefused())
		attested, n = r.attestation(t, "b.example.org")
		require.EqualValues(t, 4, n, "another bundle, and nothing to compare it with")
		require.Empty(t, attested.Row.Value.GetRefused())
		require.Len(t, attested.Row.Value.GetHistory().GetVersions(), 1)
		require.Equal(t, standing.Fresh, r.trust(t, "b.example.org"))
		require.Equal(t, standing.Unknown, r.trust(t, "c.example.org"), "no attestation")
		r.keep(t)
	}
}
