package access_test

import (
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// The grants that were made on a compromised member end with it, those made elsewhere and those of a member that is
// removed in order stay.
func TestGrantsEndWithACompromisedMember(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	wanted := &v1.Grant{Role: grant.Operator, SpiffeId: "spiffe://eu.test/ci"}
	_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: wanted})
	require.NoError(t, err)
	left := func() int {
		list, err := admin.ListGrants(t.Context(), &v1.ListGrantsRequest{})
		require.NoError(t, err)
		return len(list.GetGrants())
	}
	remove := func(member string, compromised bool) {
		_, err := h.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			return grant.RemoveMember(tx, member, compromised, time.Now())
		})
		require.NoError(t, err)
	}
	self := h.store.MemberID()
	remove(self, false)
	remove("eu-9", true)
	require.Equal(t, 1, left())

	// An operator removes members, and does not end the grants of administrators by the word compromised.
	ops := v1.NewClusterServiceClient(h.dial(t, access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.test/ci"))))
	_, err = ops.RemoveMember(t.Context(), &v1.RemoveMemberRequest{Id: "eu-9", Compromised: true})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "entente access grant admin --spiffe-id spiffe://eu.test/ci")
	_, err = ops.RemoveMember(t.Context(), &v1.RemoveMemberRequest{Id: "eu-9"})
	require.Equal(t, codes.Unimplemented, status.Code(err), "it was admitted: %v", err)

	remove(self, true)
	require.Zero(t, left())
	ended, err := grant.RevokedWith(h.store.View(), self)
	require.NoError(t, err)
	require.Len(t, ended, 1)
	require.Equal(t, "spiffe://eu.test/ci", ended[0].GetSpiffeId())
}
