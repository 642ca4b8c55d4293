package port_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// markRemoved begins the removal of a member as a leader does that stops right after.
func (m *member) markRemoved(id string) {
	m.t.Helper()
	m.eventually("has marked the row of "+id, func() error {
		_, err := m.store.Update(m.t.Context(), func(tx *raftstore.Tx) error {
			row, _, err := membership.Members.Get(tx, id)
			if err != nil {
				return err
			}
			row.Value.RemoveTime = timestamppb.New(time.Unix(0, 0))
			return membership.Members.Put(tx, id, row.Value)
		})
		return err
	})
}

// remove removes another member.
func (m *member) remove(id string) {
	m.t.Helper()
	m.eventually("has removed "+id, func() error {
		_, err := m.manager.ClusterService().RemoveMember(m.t.Context(), &ententev1.RemoveMemberRequest{Id: id})
		if status.Code(err) == codes.NotFound {
			return nil // by an attempt before
		}
		return err
	})
}

// A member stops once it has applied the mark in its row, and does not start again with its files.
func TestMarkedMemberStops(t *testing.T) {
	a := newMember(t, "eu-1").form()
	a.markRemoved("eu-1")
	err := <-a.fatal
	require.ErrorIs(t, err, raftstore.ErrRemoved)
	require.EqualError(t, err, "member stopped: the data folder is that of a member that was removed from the "+
		"cluster: the cluster has committed its removal at 1970-01-01T00:00:00Z, which it has applied; to return, "+
		"empty the data folder and join the cluster with a new token")
	a.stop()
	require.ErrorContains(t, a.refused(), "is that of a member that was removed from the cluster: \"the cluster has "+
		"committed its removal")
}

func TestRemovedMemberStops(t *testing.T) {
	all := three(t)
	all[1].remove("eu-3")
	require.ErrorIs(t, <-all[2].fatal, raftstore.ErrRemoved)
	all[2].stop()
	for _, m := range all[:2] {
		m.serving()
	}
}

// A removal that a leader has begun is completed without another call.
func TestBegunRemovalIsCompleted(t *testing.T) {
	all := three(t)
	all[0].markRemoved("eu-3")
	require.ErrorIs(t, <-all[2].fatal, raftstore.ErrRemoved)
	all[2].stop()
	for _, m := range all[:2] {
		m.eventually("has completed the removal", func() error {
			if m.hasRow("eu-3") == nil {
				return fmt.Errorf("the row is still there")
			}
			if _, known := m.directory.MemberByIdentity(all[2].identity.Digest); known {
				return fmt.Errorf("it is still in the Raft configuration")
			}
			return nil
		})
		m.serving()
	}
}

// A member that was down when it was removed stops when it returns, once both others have answered so.
func TestReturnedMemberLearnsItsRemoval(t *testing.T) {
	all := three(t)
	a, b, c := all[0], all[1], all[2]
	c.stop()
	a.remove("eu-3")
	b.eventually("has applied the removal", func() error {
		if b.hasRow("eu-3") == nil {
			return fmt.Errorf("the row is still there")
		}
		return nil
	})
	b.stop()
	answered := make(chan error, 1)
	c.dialed = func(address string, err error) {
		if address == a.address && err == nil {
			select {
			case answered <- nil:
			default:
			}
		}
	}
	c.start()
	<-answered
	select {
	case err := <-c.fatal:
		t.Fatalf("one member alone cannot remove another: %v", err)
	default:
	}
	b.start()
	err := <-c.fatal
	require.ErrorIs(t, err, raftstore.ErrRemoved)
	require.ErrorContains(t, err, "member eu-3 with this identity key was removed at ")
	require.ErrorContains(t, err, "; eu-1 and eu-2 answer so, a majority of the members with a vote")
	c.stop()
	require.ErrorIs(t, c.refused(), raftstore.ErrRemoved)
}

// refused opens the store of the stopped member again, and returns why it does not open.
func (m *member) refused() error {
	m.t.Helper()
	s, err := raftstore.Open(raftstore.Config{
		MemberID: m.id, Identity: m.identity.Digest, Address: m.address, Dir: filepath.Join(m.dir, "raft"),
	})
	if err == nil {
		require.NoError(m.t, s.Close())
	}
	return err
}
