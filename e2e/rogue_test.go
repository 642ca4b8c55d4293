package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// An operator cannot become an administrator by way of a member of its own, at any step of that way.
func TestAnOperatorAdmitsNoMember(t *testing.T) {
	c := newCluster(t, "eu", 1, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	admin := c.members[0].socket().Cluster()
	operator, _ := c.as(t, "ops", &ententev1.Grant{Role: ententev1.Role_ROLE_OPERATOR})
	ops := operator.Cluster()
	refused := func(err error, method string) {
		t.Helper()
		require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
		require.ErrorContains(t, err, "ClusterService/"+method)
	}
	_, err := ops.CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{MemberId: "eu-2", AutoApprove: true})
	refused(err, "CreateJoinToken")

	// It gets hold of a token that an administrator made, and starts a stock server with it.
	token, err := admin.CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
		MemberId: "eu-2", Ttl: durationpb.New(2 * waitLimit),
	})
	require.NoError(t, err)
	rogue := c.add(token.GetToken(), c.members[0].api)
	rogue.run()
	eventually(t, "the rogue waits", func() error {
		list, err := ops.ListMembers(ctx, &ententev1.ListMembersRequest{})
		if err == nil && len(list.GetAwaitingApproval()) != 1 {
			err = fmt.Errorf("%d wait", len(list.GetAwaitingApproval()))
		}
		return err
	})
	list, err := ops.ListMembers(ctx, &ententev1.ListMembersRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetMembers(), 1)
	_, err = ops.ApproveMember(ctx, &ententev1.ApproveMemberRequest{Id: "eu-2"})
	refused(err, "ApproveMember")
	_, err = ops.RevokeJoinToken(ctx, &ententev1.RevokeJoinTokenRequest{MemberId: "eu-2"})
	refused(err, "RevokeJoinToken")
	// Nor does it end the grants of others by calling a member compromised.
	_, err = ops.RemoveMember(ctx, &ententev1.RemoveMemberRequest{Id: "eu-1", Compromised: true})
	refused(err, "RemoveMember")
	require.Error(t, rogue.ready())
	require.Contains(t, rogue.logs(), "entente cluster approve eu-2 --identity "+
		""+list.GetAwaitingApproval()[0].GetIdentity())
	_, err = rogue.socket().Access().GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: &ententev1.Grant{
		Role: ententev1.Role_ROLE_ADMIN, SpiffeId: "spiffe://eu.example.org/evil",
	}})
	require.Equal(t, codes.Unavailable, status.Code(err), "nobody is an administrator there: %v", err)
	require.ErrorContains(t, err, "starting")
	for _, authority := range homeAuthorities(ctx, t, c) {
		require.Equal(t, "eu-1", authority.GetMember(), "it has no authority and no anchor")
	}
	_, err = admin.RevokeJoinToken(ctx, &ententev1.RevokeJoinTokenRequest{MemberId: "eu-2"})
	require.NoError(t, err)
	eventually(t, "the rejected rogue has ended", func() error {
		if rogue.isRunning() {
			return fmt.Errorf("it runs")
		}
		return nil
	})
	require.Contains(t, rogue.logs(), "this cluster has no such join token: it was revoked")
}

func homeAuthorities(ctx context.Context, t *testing.T, c *cluster) []*ententev1.Authority {
	t.Helper()
	list, err := c.members[0].socket().Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{})
	require.NoError(t, err)
	require.NotEmpty(t, list.GetAuthorities())
	return list.GetAuthorities()
}

// What was done on a member that is removed as compromised ends with it, and what cannot be ended is shown.
func TestACompromisedMemberLeavesNothingBehind(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	rogue := c.others(c.leader())[0]
	rest := c.others(rogue)
	grant := func(p *process, name string) {
		t.Helper()
		_, err := p.socket().Access().GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: &ententev1.Grant{
			Role: ententev1.Role_ROLE_ADMIN, SpiffeId: "spiffe://eu.example.org/" + name,
		}})
		require.NoError(t, err)
	}
	grant(rest[0], "boss")
	grant(rogue, "evil")
	evil := issue(t, rogue, "spiffe://eu.example.org/evil")
	_, err := rogue.socket().Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
		MemberId: "eu-9", AutoApprove: true,
	})
	require.NoError(t, err)
	access := evil.call(t, rest[0], c.domain).Access()
	eventually(t, "the grant counts on another member", func() error { // each decides by the state that it has applied
		_, err := access.ListGrants(ctx, &ententev1.ListGrantsRequest{})
		return err
	})

	done, err := rest[0].socket().Cluster().RemoveMember(ctx, &ententev1.RemoveMemberRequest{
		Id: rogue.id, Compromised: true,
	})
	require.NoError(t, err)
	require.Len(t, done.GetRevokedGrants(), 1)
	require.Equal(t, "spiffe://eu.example.org/evil", done.GetRevokedGrants()[0].GetSpiffeId())
	require.Empty(t, done.GetRemaining(), "its authorities are revoked, and have anchors of their own")
	var changes []string
	for _, change := range done.GetChanges() {
		require.Equal(t, rogue.id, change.GetMember())
		changes = append(changes, change.GetAction()+" "+change.GetObject())
	}
	require.Equal(t, []string{
		"AccessService/GrantRole admin of spiffe://eu.example.org/evil in every hosted domain",
		"ClusterService/CreateJoinToken eu-9 with automatic approval",
	}, changes)
	grants, err := rest[0].socket().Access().ListGrants(ctx, &ententev1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Len(t, grants.GetGrants(), 1)
	require.Equal(t, "spiffe://eu.example.org/boss", grants.GetGrants()[0].GetSpiffeId())
	tokens, err := rest[0].socket().Cluster().ListJoinTokens(ctx, &ententev1.ListJoinTokensRequest{})
	require.NoError(t, err)
	require.Empty(t, tokens.GetJoinTokens())

	// The others have in their own audit logs what was done there.
	for _, p := range rest {
		tail, err := p.socket().Audit().TailAudit(ctx, &ententev1.TailAuditRequest{Lines: 1000, Follow: true})
		require.NoError(t, err)
		for {
			e, err := tail.Recv()
			require.NoError(t, err)
			if e.GetResult() == "recorded" && strings.Contains(e.GetObject(), "spiffe://eu.example.org/evil") {
				require.Contains(t, e.GetDetail(), "made on member "+rogue.id)
				break
			}
		}
	}
}
