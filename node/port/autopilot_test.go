package port_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/membership"
)

// autopilot returns what the autopilot shows.
func (m *member) autopilot() *ententev1.GetAutopilotResponse {
	m.t.Helper()
	shown, err := m.manager.ClusterService().GetAutopilot(m.t.Context(), &ententev1.GetAutopilotRequest{})
	require.NoError(m.t, err)
	return shown
}

// TestDeadMemberIsRemoved: a member that has been dead for long is removed once another stands in for it, and not
// before.
func TestDeadMemberIsRemoved(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	c := newMember(t, "eu-3").joined(a)
	require.Empty(t, a.autopilot().GetMembers())
	require.EqualValues(t, 1, a.autopilot().GetFailureTolerance())

	c.stop()
	later := func(d time.Duration) { // on every clock alike, so that all are sane
		for _, m := range []*member{a, b, c} {
			m.ahead.Store(int64(d))
		}
	}
	a.eventually("knows that the member is dead", func() error {
		if shown := a.autopilot(); len(shown.GetMembers()) == 0 {
			return errors.New("it has no verdict")
		}
		return nil
	})
	verdict := a.autopilot().GetMembers()[0]
	require.Equal(t, "eu-3", verdict.GetId())
	require.Contains(t, verdict.GetVerdict(), "it is removed once 3 members with a vote are alive without it")
	require.Nil(t, verdict.GetRemoveTime())
	require.Zero(t, a.autopilot().GetFailureTolerance())

	// The time is over, and nobody stands in for it: it stays. The leader has looked after the write.
	later(48 * time.Hour)
	a.write()
	d := newMember(t, "eu-4")
	d.ahead.Store(int64(48 * time.Hour))
	d.joined(b)
	b.eventually("has the replacement as a voter", func() error {
		for _, s := range b.store.Servers().List() {
			if s.MemberID == "eu-4" && s.Voter {
				return nil
			}
		}
		return errors.New("it has no vote")
	})
	require.NoError(t, a.hasRow("eu-3"), "the replacement is not stable yet")
	require.Contains(t, a.autopilot().GetMembers()[0].GetVerdict(), "have been members for 10m0s, and 2 are")

	for _, m := range []*member{a, b, d} {
		m.ahead.Store(int64(49 * time.Hour))
	}
	for _, m := range []*member{a, b, d} {
		m.eventually("has removed the dead member", func() error {
			if err := m.hasRow("eu-3"); err == nil {
				return errors.New("it is still a member")
			}
			return nil
		})
	}
	require.Empty(t, a.autopilot().GetMembers())
	require.Equal(t, membership.Removal{MemberID: "eu-3"}, <-a.removed, "by the way of every removal")
}

// TestNonVoterForGood: a member whose token says so never gets a vote, and everything else.
func TestNonVoterForGood(t *testing.T) {
	a := newMember(t, "eu-1").form()
	token, err := a.createToken(&ententev1.CreateJoinTokenRequest{
		MemberId: "eu-2", AutoApprove: true, NonVoter: true,
	})
	require.NoError(t, err)
	b := newMember(t, "eu-2").start()
	require.NoError(t, b.enter(token, a.address))
	b.eventually("has what was written", b.reached(a.write()))
	// A member that joins later and gets its vote shows that the leader has decided since.
	newMember(t, "eu-3").joined(a)
	a.eventually("has given the vote to the later member alone", func() error {
		list, err := a.manager.ClusterService().ListMembers(t.Context(), &ententev1.ListMembersRequest{})
		if err != nil {
			return err
		}
		for _, m := range list.GetMembers() {
			if m.GetVoter() != (m.GetId() != "eu-2") || m.GetNonVoter() != (m.GetId() == "eu-2") {
				return fmt.Errorf("member %s: voter %t, non-voter %t", m.GetId(), m.GetVoter(), m.GetNonVoter())
			}
		}
		return nil
	})
	for _, m := range a.autopilot().GetMembers() {
		require.NotEqual(t, "eu-2", m.GetId(), "it waits for nothing")
	}
	_ = b.write()
}

// TestAutopilotSettings: they are replicated, and a change of what somebody else has changed is refused.
func TestAutopilotSettings(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	update := func(m *member, etag string, quorum uint32) (*ententev1.UpdateAutopilotResponse, error) {
		return m.manager.ClusterService().UpdateAutopilot(t.Context(), &ententev1.UpdateAutopilotRequest{
			Autopilot: &ententev1.Autopilot{MinQuorum: quorum}, Etag: etag,
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"min_quorum"}},
		})
	}
	before := a.autopilot().GetAutopilot()
	require.True(t, before.GetRemoveDeadMembers())
	done, err := update(b, before.GetEtag(), 5)
	require.NoError(t, err)
	require.EqualValues(t, 5, a.autopilot().GetAutopilot().GetMinQuorum())
	require.Equal(t, done.GetAutopilot().GetEtag(), a.autopilot().GetAutopilot().GetEtag())
	_, err = update(a, before.GetEtag(), 1)
	require.ErrorContains(t, err, "the autopilot")
	_, err = update(a, "", 10)
	require.ErrorContains(t, err, "min_quorum is 10; it must be from 1 to 9")
	_, err = a.manager.ClusterService().UpdateAutopilot(t.Context(), &ententev1.UpdateAutopilotRequest{})
	require.ErrorContains(t, err, "update_mask names no field")
}
