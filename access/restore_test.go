package access_test

import (
	"bytes"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// A restored snapshot that is older than a revocation does not undo it. Other deleted grants return.
func TestRestoreGivesBackNothingRevoked(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	fired := &v1.Grant{Role: grant.Discovery, SpiffeId: "spiffe://eu.test/fired", Services: []string{"shop"}}
	again := &v1.Grant{Role: grant.Reader, SpiffeId: "spiffe://eu.test/again"}
	domain := &v1.Grant{Role: grant.Issuer, SpiffeId: "spiffe://pay.test/ci", TrustDomain: "pay.test"}
	give := func(g *v1.Grant) {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: g})
		require.NoError(t, err)
	}
	take := func(g *v1.Grant) {
		_, err := admin.RevokeRole(t.Context(), &v1.RevokeRoleRequest{Role: g.GetRole(), SpiffeId: g.GetSpiffeId(),
			TrustDomain: g.GetTrustDomain(), PathPrefix: g.GetPathPrefix(),
			Services: g.GetServices()})
		require.NoError(t, err)
	}
	give(fired)
	give(again)
	give(domain)
	var snapshot bytes.Buffer
	_, err := h.store.Snapshots().Save(t.Context(), &snapshot)
	require.NoError(t, err)

	take(fired)
	take(again)
	give(again)
	_, err = h.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return grant.RevokeDomain(tx, spiffeid.RequireTrustDomainFromString("pay.test"))
	})
	require.NoError(t, err)
	restore := func() []string {
		_, err := h.store.Snapshots().Restore(t.Context(), bytes.NewReader(snapshot.Bytes()))
		require.NoError(t, err)
		list, err := admin.ListGrants(t.Context(), &v1.ListGrantsRequest{})
		require.NoError(t, err)
		var callers []string
		for _, g := range list.GetGrants() {
			callers = append(callers, g.GetSpiffeId())
		}
		return callers
	}
	want := []string{"spiffe://eu.test/again", "spiffe://pay.test/ci"}
	require.Equal(t, want, restore())
	require.Equal(t, want, restore(), "a second restore remembers it too")
	of, err := grant.OwnersOf(h.store.View(), "shop")
	require.NoError(t, err)
	require.Empty(t, of.Grants, "the restore brought an owner back")
	require.True(t, of.Reserved, "the restore opened the name")
}

// A restored snapshot that is older than the first owner of a service does not open its name.
func TestRestoreKeepsNamesReserved(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	var snapshot bytes.Buffer
	_, err := h.store.Snapshots().Save(t.Context(), &snapshot)
	require.NoError(t, err)
	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{
		Role: grant.Discovery, SpiffeId: "spiffe://eu.test/plane", Services: []string{"cart", "shop"},
	}})
	require.NoError(t, err)
	_, err = admin.RevokeRole(t.Context(), &v1.RevokeRoleRequest{
		Role: grant.Discovery, SpiffeId: "spiffe://eu.test/plane", Services: []string{"cart", "shop"},
	})
	require.NoError(t, err)
	_, err = admin.ReleaseService(t.Context(), &v1.ReleaseServiceRequest{Service: "cart"})
	require.NoError(t, err)
	_, err = h.store.Snapshots().Restore(t.Context(), bytes.NewReader(snapshot.Bytes()))
	require.NoError(t, err)
	list, err := admin.ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{"shop"}, list.GetReservedServices())
}
