package invitation

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// TestCompromisedMember tests that the removal of a compromised member revokes the open invitations that name it.
func TestCompromisedMember(t *testing.T) {
	open := timestamppb.New(time.Now().Add(time.Hour))
	good, bad := make([]byte, 32), append(make([]byte, 31), 1)
	for name, c := range map[string]struct {
		named       [][]byte
		known       bool
		compromised bool
		void        bool
	}{
		"named":                       {[][]byte{good, bad}, true, true, true},
		"not named":                   {[][]byte{good}, true, true, false},
		"the member only left":        {[][]byte{good, bad}, true, false, false},
		"of an earlier version":       {nil, true, true, true},
		"identity not known any more": {[][]byte{good}, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
				if c.known {
					member := &statev1.Member{Id: "eu-2", Identity: bad}
					if err := membership.Members.Put(tx, member.GetId(), member); err != nil {
						return err
					}
				}
				spent := &statev1.Invitation{
					ExpireTime: open,
					Identities: c.named,
					Redemption: &statev1.InvitationRedemption{Time: some},
				}
				return errors.Join(invitations.Put(tx, "open",
					&statev1.Invitation{ExpireTime: open, Identities: c.named}), invitations.Put(tx, "spent", spent))
			})
			require.NoError(t, err)
			_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
				return r.manager.RemoveMember(tx,
					"eu-2", c.compromised)
			})
			require.NoError(t, err)
			list, err := r.service.ListInvitations(t.Context(), &ententev1.ListInvitationsRequest{})
			require.NoError(t, err)
			require.Len(t, list.GetInvitations(), 2)
			first := list.GetInvitations()[0].GetState()
			require.Equal(t, c.void, first == ententev1.InvitationState_INVITATION_STATE_REVOKED)
			require.Equal(t, ententev1.InvitationState_INVITATION_STATE_USED, list.GetInvitations()[1].GetState())
			if c.void {
				require.Equal(t, reasonCompromised, list.GetInvitations()[0].GetRevokeReason())
			}
		})
	}
}

// TestMemberRemovedMeanwhile tests that an invitation is not created if it names a member that was removed meanwhile.
func TestMemberRemovedMeanwhile(t *testing.T) {
	r := newRoom(t)
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		if err := membership.Members.Put(tx, "eu-1", &statev1.Member{Id: "eu-1", Identity: []byte{1}}); err != nil {
			return err
		}
		require.NoError(t, stillMembers(tx, [][]byte{{1}}))
		return stillMembers(tx, [][]byte{{1}, {2}})
	})
	require.ErrorContains(t, err, "the members of this cluster changed during the call; create the invitation again")
}
