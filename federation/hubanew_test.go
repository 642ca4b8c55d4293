package federation

import (
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/trust"
)

// ends deletes the relationship with a hub; the leader does not look before the next one is made.
func (r *room) ends(t testing.TB, td string) {
	t.Helper()
	_, err := r.service.DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{TrustDomain: td})
	require.NoError(t, err)
}

// TestAHubBeginsAnewWithANewRelationship: what it said under the one that was deleted counts no more, whether or not it
// is swept yet. Neither does it keep what is said under the new one from being taken, nor come to count again by that.
func TestAHubBeginsAnewWithANewRelationship(t *testing.T) {
	r := newRoom(t)
	hub, a, b, c := federationtest.NewAuthority(t, "hub.example.org"), federationtest.NewAuthority(t,
		"a.example.org"), federationtest.NewAuthority(t, "b.example.org"), federationtest.NewAuthority(t, "c.example.org")
	p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 5), b.Bundle(t, 5), c.Bundle(t, 5)))
	r.takes(t, hub, p, ".example.org")
	r.refresh(t, "hub.example.org")
	require.Equal(t, trust.Fresh, r.trust(t, "a.example.org"))

	r.ends(t, "hub.example.org")
	rotated := b.Rotated(t)
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, a.Bundle(t, 5), rotated.Bundle(t, 4)))
	r.takes(t, hub, p, ".example.org")
	for _, td := range []string{"a.example.org", "b.example.org", "c.example.org"} {
		require.Equal(t, trust.Unknown, r.trust(t, td))
	}
	r.refresh(t, "hub.example.org")
	for range 2 { // before what counts no more is swept, and after
		word, n := r.word(t, "a.example.org")
		require.EqualValues(t, 5, n, "it says the same again")
		require.Empty(t, word.Row.Value.GetRefused())
		word, n = r.word(t, "b.example.org")
		require.EqualValues(t, 4, n, "it says something else, and nothing came before")
		require.Empty(t, word.Row.Value.GetRefused())
		require.Len(t, word.Row.Value.GetHistory().GetVersions(), 1)
		require.Equal(t, trust.Fresh, r.trust(t, "b.example.org"))
		require.Equal(t, trust.Unknown, r.trust(t, "c.example.org"), "it says nothing of it")
		r.keep(t)
	}
}
