package access_test

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/access/record"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

// Every administrative method is in the record of the cluster, whichever service has it, and nothing else is.
func TestAdministrativeCallsAreRecorded(t *testing.T) {
	h := build(t)
	conn := h.dial(t, root)
	admin := v1.NewAccessServiceClient(conn)
	wanted := &v1.Grant{Role: grant.Reader, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test"}
	granted, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: wanted})
	require.NoError(t, err)
	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: wanted}) // it exists: nothing changes
	require.NoError(t, err)
	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{
		Role: grant.Reader, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "us.test",
	}})
	require.Error(t, err)
	_, err = admin.ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.NoError(t, err)
	h.ids <- spiffeid.RequireFromString("spiffe://eu.test/web")
	batch := &v1.IssueX509SVIDsRequest{TrustDomain: "eu.test"}
	_, err = v1.NewSVIDServiceClient(conn).IssueX509SVIDs(t.Context(), batch)
	require.NoError(t, err)
	_, err = v1.NewAccessServiceClient(h.dial(t, ci)).GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: wanted})
	require.Error(t, err)
	// The handlers of these run no transaction.
	_, err = v1.NewDomainServiceClient(conn).CreateDomain(t.Context(), create("pay.test"))
	require.NoError(t, err)
	restore, err := v1.NewClusterServiceClient(conn).RestoreSnapshot(t.Context())
	require.NoError(t, err)
	require.NoError(t, restore.Send(&v1.RestoreSnapshotRequest{Data: []byte("x")}))
	_, err = restore.CloseAndRecv()
	require.NoError(t, err)
	_, err = admin.RevokeRole(t.Context(), &v1.RevokeRoleRequest{
		Role: wanted.GetRole(), SpiffeId: wanted.GetSpiffeId(), TrustDomain: wanted.GetTrustDomain(),
	})
	require.NoError(t, err)

	made, err := record.MadeOn(h.store.View(), h.store.MemberID())
	require.NoError(t, err)
	var got []string
	for _, c := range made {
		got = append(got, c.GetCaller()+"|"+c.GetAction()+"|"+c.GetObject())
	}
	require.Equal(t, []string{
		"admin socket (uid 0, pid 42)|AccessService/GrantRole|reader of spiffe://eu.test/ci in eu.test",
		"admin socket (uid 0, pid 42)|DomainService/CreateDomain|pay.test",
		"admin socket (uid 0, pid 42)|ClusterService/RestoreSnapshot|",
		"admin socket (uid 0, pid 42)|AccessService/RevokeRole|reader of spiffe://eu.test/ci in eu.test",
	}, got)
	require.Equal(t, granted.GetRevision(), uint64(made[0].Revision), "the change and its row are one transaction")
}
