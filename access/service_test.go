package access_test

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

func TestGrantsThroughTheAPI(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	workload := h.dial(t, ci)
	domains := v1.NewDomainServiceClient(workload)

	_, err := domains.ListDomains(t.Context(), &v1.ListDomainsRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))

	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Reader,
		SpiffeId: "spiffe://eu.test/ci", TrustDomain: "us.test"}})
	require.EqualError(t, err, "rpc error: code = FailedPrecondition desc = this cluster does not host the trust "+
		"domain us.test: roles are granted in hosted domains, which entente domain list shows")
	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Reader,
		SpiffeId: "eu.test/ci"}})
	require.Equal(t, codes.InvalidArgument, status.Code(err))

	granted, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Admin,
		SpiffeId: "spiffe://eu.test/ci", TrustDomain: "pay.test"}})
	require.NoError(t, err)
	require.NotZero(t, granted.GetRevision())
	again, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: granted})
	require.NoError(t, err)
	require.Equal(t, granted.GetRevision(), again.GetRevision(), "the same grant again changes nothing")
	require.Equal(t, granted.GetEtag(), again.GetEtag())

	// The administrator of one domain sees that domain, and grants roles in it.
	listed, err := domains.ListDomains(t.Context(), &v1.ListDomainsRequest{})
	require.NoError(t, err)
	require.Len(t, listed.GetDomains(), 1)
	require.Equal(t, "pay.test", listed.GetDomains()[0].GetTrustDomain())
	_, err = admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Reader,
		SpiffeId: "spiffe://eu.test/other"}})
	require.NoError(t, err)
	own := v1.NewAccessServiceClient(workload)
	_, err = own.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Issuer,
		SpiffeId: "spiffe://pay.test/ci", TrustDomain: "pay.test", PathPrefix: "/web"}})
	require.NoError(t, err)
	_, err = own.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Issuer,
		SpiffeId: "spiffe://pay.test/ci", TrustDomain: "eu.test"}})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	grants, err := own.ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Len(t, grants.GetGrants(), 2)
	grants, err = admin.ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Len(t, grants.GetGrants(), 3)

	// Within the call, the room checks IDs that the request did not show.
	h.ids <- spiffeid.RequireFromString("spiffe://pay.test/web")
	_, err = domains.GetDomain(t.Context(), &v1.GetDomainRequest{TrustDomain: "pay.test"})
	require.NoError(t, err)
	h.ids <- spiffeid.RequireFromString("spiffe://eu.test/web")
	_, err = domains.GetDomain(t.Context(), &v1.GetDomainRequest{TrustDomain: "pay.test"})
	require.Equal(t, codes.PermissionDenied, status.Code(err))

	_, err = admin.RevokeRole(t.Context(), &v1.RevokeRoleRequest{Role: grant.Admin, SpiffeId: "spiffe://eu.test/ci",
		TrustDomain: "pay.test"})
	require.NoError(t, err)
	_, err = domains.ListDomains(t.Context(), &v1.ListDomainsRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	_, err = admin.RevokeRole(t.Context(), &v1.RevokeRoleRequest{Role: grant.Admin, SpiffeId: "spiffe://eu.test/ci",
		TrustDomain: "pay.test"})
	require.EqualError(t, err, `rpc error: code = NotFound desc = spiffe://eu.test/ci does not have this grant (role `+
		`admin, domain pay.test, path any, DNS names none): 'entente access list' shows which there are`)
}

func TestRevokeDomain(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	for _, td := range []string{"pay.test", "eu.test", ""} {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Reader,
			SpiffeId: "spiffe://pay.test/ci", TrustDomain: td}})
		require.NoError(t, err)
	}
	_, err := h.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return grant.RevokeDomain(tx, spiffeid.RequireTrustDomainFromString("pay.test"))
	})
	require.NoError(t, err)
	left, err := admin.ListGrants(t.Context(), &v1.ListGrantsRequest{})
	require.NoError(t, err)
	var domains []string
	for _, g := range left.GetGrants() {
		domains = append(domains, g.GetTrustDomain())
	}
	require.Equal(t, []string{"eu.test", ""}, domains)
}

func TestTailAudit(t *testing.T) {
	h := build(t)
	conn := h.dial(t, root)
	_, err := v1.NewDomainServiceClient(conn).CreateDomain(t.Context(), create("pay.test"))
	require.NoError(t, err)
	tail, err := v1.NewAuditServiceClient(conn).TailAudit(t.Context(), &v1.TailAuditRequest{Lines: 1, Follow: true})
	require.NoError(t, err)
	e, err := tail.Recv()
	require.NoError(t, err)
	require.Equal(t, "done", e.GetResult())
	require.Equal(t, uint64(17), e.GetRevision())
	require.NoError(t, h.log.Record(audit.Event{Caller: "authority", Action: "prepare", Object: "eu.test",
		Result: audit.ResultDone}))
	e, err = tail.Recv()
	require.NoError(t, err)
	require.Equal(t, "prepare", e.GetAction())

	tail, err = v1.NewAuditServiceClient(conn).TailAudit(t.Context(), &v1.TailAuditRequest{Lines: 1001})
	require.NoError(t, err)
	_, err = tail.Recv()
	require.EqualError(t, err, "rpc error: code = InvalidArgument desc = lines is 1001: at most 1000 can be shown; "+
		"the file on the member has every line")
}
