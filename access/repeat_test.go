package access_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/access/record"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
)

// A repeated call answers with what the first one made, and is no change: it is in no record but the audit log.
func TestRepeatedCall(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	request := &v1.GrantRoleRequest{
		RequestId: "6F1C0B52-0a3e-4d39-9d7c-0c8f5f3c1a11",
		Grant:     &v1.Grant{Role: grant.Reader, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test"},
	}
	granted, err := admin.GrantRole(t.Context(), request)
	require.NoError(t, err)
	request.RequestId = strings.ToLower(request.GetRequestId()) // the same UUID
	again, err := admin.GrantRole(t.Context(), request)
	require.NoError(t, err)
	require.True(t, proto.Equal(granted, again), "%v is not %v", again, granted)
	made, err := record.MadeOn(h.store.View(), h.store.MemberID())
	require.NoError(t, err)
	require.Len(t, made, 1)

	got, err := admin.GetGrant(t.Context(), &v1.GetGrantRequest{
		Role: grant.Reader, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test",
	})
	require.NoError(t, err)
	require.Equal(t, granted.GetEtag(), got.GetEtag())
	_, err = admin.GetGrant(t.Context(), &v1.GetGrantRequest{Role: grant.Reader, SpiffeId: "spiffe://eu.test/ci"})
	require.Equal(t, codes.NotFound, status.Code(err))

	other := proto.CloneOf(request)
	other.Grant.TrustDomain = "pay.test"
	_, err = admin.GrantRole(t.Context(), other)
	require.Equal(t, apierror.RequestReused, apierror.Reason(status.Convert(err)))

	_, err = admin.RevokeRole(t.Context(), &v1.RevokeRoleRequest{
		Role: grant.Reader, SpiffeId: "spiffe://eu.test/ci", TrustDomain: "eu.test",
	})
	require.NoError(t, err)
	_, err = admin.GrantRole(t.Context(), request)
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "the repeated call has granted the role again")
	all, err := admin.ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Empty(t, all.GetGrants())
	require.Contains(t, strings.Join(h.lines(t), "\n"), "repeated: it was made before, and nothing is changed")
}
