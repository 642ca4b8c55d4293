package invitation

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// reasonCompromised is the reason for revoking an invitation that names a member which was removed as compromised.
const reasonCompromised = "a member that it names was removed as compromised"

// RemoveMember is part of the transaction that removes a member. If the member is compromised, it revokes each open
// invitation that names it: the holder of its identity key could otherwise answer in the name of this cluster. If the
// identity of the member is not known any more, it revokes all open invitations.
func (m *Agreements) RemoveMember(tx *raftstore.Tx, member string, compromised bool) error {
	if !compromised {
		return nil // its key is safe, and the other cluster calls the next member
	}
	was, known, err := membership.Members.Get(tx, member)
	if err != nil {
		return err
	}
	rows, err := invitations.List(tx, "")
	if err != nil {
		return err
	}
	now := m.config.Now()
	for _, row := range rows {
		if !revocable(row.Value.GetIdentities(), was.Value.GetIdentity(), known) {
			continue
		}
		if state, _ := invitationState(row.Value, now); state != ententev1.InvitationState_INVITATION_STATE_OPEN {
			continue
		}
		row.Value.RevokeTime, row.Value.RevokeReason = timestamppb.New(now), reasonCompromised
		if err := invitations.Put(tx, row.Key, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// revocable reports whether an invitation names a removed member, or may name it because known is false.
func revocable(named [][]byte, removed []byte, known bool) bool {
	return !known || len(named) == 0 ||
		slices.ContainsFunc(named, func(d []byte) bool { return bytes.Equal(d, removed) })
}

// stillMembers returns an error if a token names a member that was removed since the token was written. It runs in the
// transaction that creates the invitation.
func stillMembers(r raftstore.Reader, named [][]byte) error {
	rows, err := membership.Members.List(r, "")
	if err != nil {
		return err
	}
	for _, d := range named {
		isNamed := func(row raftstore.Row[*statev1.Member]) bool { return bytes.Equal(row.Value.GetIdentity(), d) }
		if !slices.ContainsFunc(rows, isNamed) {
			return status.Error(codes.Aborted,
				"the members of this cluster changed during the call; create the invitation again")
		}
	}
	return nil
}

// revokedText describes when and why an invitation was revoked.
func revokedText(at time.Time, reason string) string {
	text := "the invitation was revoked at " + at.Format(time.RFC3339)
	if reason != "" {
		text += ": " + reason
	}
	return text
}
