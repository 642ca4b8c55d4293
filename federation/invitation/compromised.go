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

// reasonCompromised is why an invitation is revoked that names a member which was removed as compromised.
const reasonCompromised = "a member that it names was removed as compromised"

// RemoveMember is part of the transaction that removes a member. The identity key of a compromised member could answer
// for this cluster to a cluster that accepts an invitation, so that each open invitation that names it becomes void. If
// the identity of the member is not known any more, all open invitations do.
func (m *Agreements) RemoveMember(tx *raftstore.Tx, member string, compromised bool) error {
	if !compromised {
		return nil // its key is nobody else's, and who does not find it asks the next
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

// revocable reports whether an invitation names a removed member, or may name it. known means that the identity of that
// member is known.
func revocable(named [][]byte, removed []byte, known bool) bool {
	return !known || len(named) == 0 ||
		slices.ContainsFunc(named, func(d []byte) bool { return bytes.Equal(d, removed) })
}

// stillMembers checks, in the transaction that creates an invitation, that everyone it names is still a member.
func stillMembers(r raftstore.Reader, named [][]byte) error {
	rows, err := membership.Members.List(r, "")
	if err != nil {
		return err
	}
	for _, d := range named {
		if !slices.ContainsFunc(
			rows,
			func(row raftstore.Row[*statev1.Member]) bool { return bytes.Equal(row.Value.GetIdentity(), d) },
		) {
			return status.Error(
				codes.Aborted,
				"the members of this cluster changed while the invitation was made; make it again",
			)
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
