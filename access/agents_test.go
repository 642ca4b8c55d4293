package access_test

import (
	"sync/atomic"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// An agent is known by its name together with its key. When the name is attested with another key, the SVID of the
// first one is worth nothing: for calls, for open streams, and for the limits of connections, whatever grants its ID
// has.
func TestAgentsAreKnownByTheirKeys(t *testing.T) {
	first, second := [32]byte{1}, [32]byte{2}
	id := spiffeid.RequireFromString("spiffe://eu.test/entente/agent/node-1")
	var attested atomic.Pointer[[32]byte]
	attested.Store(&first)
	h := buildWith(t, func(c *access.GuardConfig) {
		c.Agents = grant.Prefix() // any table that this test can change
		c.Agent = func(_ raftstore.Reader, of spiffeid.ID, key [32]byte) (bool, error) {
			return of == id && key == *attested.Load(), nil
		}
	})
	before, after := access.SVIDCaller(id).WithKey(first), access.SVIDCaller(id).WithKey(second)
	list := func(c access.Caller) codes.Code {
		_, err := v1.NewDomainServiceClient(h.dial(t, c)).ListDomains(t.Context(), &v1.ListDomainsRequest{})
		return status.Code(err)
	}
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	give := func(id string) {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{
			Grant: &v1.Grant{Role: grant.Reader, SpiffeId: id},
		})
		require.NoError(t, err)
	}
	give(id.String())
	require.Equal(t, codes.OK, list(before), "by its grant")
	require.Equal(t, codes.PermissionDenied, list(after))
	require.Equal(t, codes.PermissionDenied, list(access.SVIDCaller(id)), "without a key")
	require.True(t, h.guard.HasGrant(before))
	require.False(t, h.guard.HasGrant(after))

	watch, err := v1.NewBundleServiceClient(h.dial(t, before)).WatchBundles(t.Context(), &v1.WatchBundlesRequest{})
	require.NoError(t, err)
	h.bundles <- &v1.WatchBundlesResponse{}
	_, err = watch.Recv()
	require.NoError(t, err)
	attested.Store(&second)
	give("spiffe://eu.test/other") // a change of the table
	_, err = watch.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)
	require.Equal(t, codes.PermissionDenied, list(before))
	require.Equal(t, codes.OK, list(after))
}
