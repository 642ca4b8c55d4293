package port_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/membership/join"
)

// awaiting starts a member that redeems a token and waits for approval. The channel receives how that ended.
func awaiting(t *testing.T, id string, with *member) (*member, join.Token, <-chan error) {
	t.Helper()
	token, err := with.createToken(&ententev1.CreateJoinTokenRequest{MemberId: id})
	require.NoError(t, err)
	joiner := newMember(t, id).start()
	ended := make(chan error, 1)
	go func() { ended <- joiner.enter(token, with.address) }()
	with.eventually("has a joiner that waits", func() error {
		list, err := with.manager.ClusterService().ListMembers(t.Context(), &ententev1.ListMembersRequest{})
		if err == nil && len(list.GetAwaitingApproval()) == 0 {
			err = fmt.Errorf("nobody waits")
		}
		return err
	})
	return joiner, token, ended
}

// requireStranger asserts that a member treats the holder of an identity key like anybody else.
func requireStranger(t *testing.T, m, stranger *member) {
	t.Helper()
	for _, protocol := range []string{"entente-raft/1", "entente-member/1"} {
		own := stranger.identity.Certificate
		require.Error(t, refusal(clientTLS(m.address, protocol, &own)))
		m.eventually("has counted the refusal", func() error {
			if gather(t, m, "entente_port_refused_total", protocol) == 0 {
				return fmt.Errorf("nothing was refused under %s", protocol)
			}
			return nil
		})
	}
	_, known := m.directory.MemberByIdentity(stranger.identity.Digest)
	require.False(t, known)
	require.Error(t, m.hasRow(stranger.id))
	for _, s := range m.store.Servers().List() {
		require.NotEqual(t, stranger.id, s.MemberID, "it is outside of the Raft configuration")
	}
	require.False(t, stranger.store.HasState(), "it holds no state")
	require.Zero(t, stranger.store.View().Revision())
}

func TestAJoinerIsNobodyUntilApproved(t *testing.T) {
	a := newMember(t, "eu-1").form()
	cluster := a.manager.ClusterService()
	b, token, ended := awaiting(t, "eu-2", a)
	requireStranger(t, a, b)
	// Its commands are refused: it has no connection to a member, and asking the leader to add it is for members too.
	_, err := b.store.Update(shortly(t), func(tx *raftstore.Tx) error {
		return membership.Members.Put(tx, "eu-2", &statev1.Member{Id: "eu-2", Identity: b.identity.Digest[:]})
	})
	require.Error(t, err)
	_, err = b.port.Conn("eu-1")
	require.ErrorIs(t, err, port.ErrNotAMember)

	list, err := cluster.ListJoinTokens(t.Context(), &ententev1.ListJoinTokensRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetJoinTokens(), 1)
	identity := hex.EncodeToString(b.identity.Digest[:])
	require.Equal(t, identity, list.GetJoinTokens()[0].GetJoiner().GetIdentity())
	require.Equal(t, token.ID, list.GetJoinTokens()[0].GetId())
	require.Equal(t, "eu-1", list.GetJoinTokens()[0].GetCreatedOn())

	_, err = a.createToken(&ententev1.CreateJoinTokenRequest{MemberId: "eu-2"})
	require.ErrorContains(t, err, "joiner eu-2 at "+b.address+", identity key "+identity+", waits for approval")
	_, err = cluster.RemoveMember(t.Context(), &ententev1.RemoveMemberRequest{Id: "eu-2"})
	require.ErrorContains(t, err, "the cluster has no member eu-2")
	_, err = cluster.ApproveMember(t.Context(), &ententev1.ApproveMemberRequest{
		Id: "eu-2", Identity: hex.EncodeToString(a.identity.Digest[:]),
	})
	require.ErrorContains(t, err, "has identity key "+identity+", not the one given")
	requireStranger(t, a, b)

	done, err := cluster.ApproveMember(t.Context(), &ententev1.ApproveMemberRequest{Id: "eu-2", Identity: identity})
	require.NoError(t, err)
	assert.Equal(t, b.address, done.GetMember().GetAddress())
	require.NoError(t, <-ended)
	b.eventually("has what was written", b.reached(a.write()))
	_, err = cluster.ApproveMember(t.Context(), &ententev1.ApproveMemberRequest{Id: "eu-2"})
	require.ErrorContains(t, err, "no joiner eu-2 waits for approval")
	_, err = cluster.RevokeJoinToken(t.Context(), &ententev1.RevokeJoinTokenRequest{MemberId: "eu-2"})
	require.ErrorContains(t, err, "no join token for eu-2 can admit a member")
}

func TestARejectedJoinerIsRefused(t *testing.T) {
	a := newMember(t, "eu-1").form()
	_, _, ended := awaiting(t, "eu-2", a)
	done, err := a.manager.ClusterService().RevokeJoinToken(t.Context(), &ententev1.RevokeJoinTokenRequest{
		MemberId: "eu-2",
	})
	require.NoError(t, err)
	assert.Equal(t, "eu-2", done.GetJoinToken().GetJoiner().GetId())
	err = <-ended
	require.ErrorIs(t, err, join.ErrRefused)
	require.ErrorContains(t, err, "this cluster has no such join token: it was revoked")
}

// Whichever member is removed, and whoever made a token before, the token admits nobody: one that is open, one that
// needs no approval, one whose joiner waits, and one that was used before by the removed member or by its successor.
func TestNoTokenOutlivesARemoval(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").start()
	used := a.token("eu-2", time.Minute)
	require.NoError(t, b.enter(used, a.address))
	b.eventually("knows the leader", func() error { return b.hasRow("eu-1") })
	onRogue := b.token("eu-3", time.Minute)
	elsewhere := a.token("eu-4", time.Minute)
	waiting, _, ended := awaiting(t, "eu-5", a)
	_, err := a.manager.ClusterService().RemoveMember(t.Context(), &ententev1.RemoveMemberRequest{
		Id: "eu-2", Compromised: true,
	})
	require.NoError(t, err)

	require.ErrorContains(t, <-ended, "void after a restore or the removal of a member")
	requireStranger(t, a, waiting)
	for id, token := range map[string]join.Token{"eu-3": onRogue, "eu-4": elsewhere} {
		joiner := newMember(t, id).start()
		require.ErrorContains(t, joiner.enter(token, a.address), "void after a restore or the removal of a member")
		requireStranger(t, a, joiner)
	}
	require.ErrorContains(t, b.enter(used, a.address), "member eu-2 joined with this token before and was removed "+
		"since")

	successor := newMember(t, "eu-2").joined(a)
	require.ErrorContains(t, b.enter(used, a.address), "the cluster has a member eu-2 with another identity key")
	require.NoError(t, a.hasRow("eu-2"))
	successor.write()
	_, err = a.manager.ClusterService().ApproveMember(t.Context(), &ententev1.ApproveMemberRequest{Id: "eu-5"})
	require.Equal(t, codes.NotFound, status.Code(err), "%v", err)
}

// shortly returns a context that ends soon, for a call that cannot succeed.
func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*glance)
	t.Cleanup(cancel)
	return ctx
}
