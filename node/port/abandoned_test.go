package port_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/recovery"
)

// recovered makes a cluster of one of the stopped member, without the others.
func (m *member) recovered(without ...*member) {
	m.t.Helper()
	s, err := raftstore.OpenStopped(raftstore.Config{
		MemberID: m.id, Identity: m.identity.Digest, Address: m.address, Dir: filepath.Join(m.dir, "raft"),
	})
	require.NoError(m.t, err)
	last, err := s.LastIndex()
	require.NoError(m.t, err)
	row := &statev1.Recovery{MemberId: m.id, Time: timestamppb.New(time.Unix(0, 0)), LastIndex: uint64(last)}
	for _, other := range without {
		row.Abandoned = append(row.Abandoned, &statev1.AbandonedMember{
			Id: other.id, Identity: other.identity.Digest[:],
		})
	}
	_, err = s.Recover(func(tx *raftstore.Tx) error { return recovery.Begin(tx, row) })
	require.NoError(m.t, err)
	require.NoError(m.t, s.Close())
}

// completed starts a recovered member, and completes the recovery.
func (m *member) completed() {
	m.t.Helper()
	m.start()
	m.eventually("serves", m.store.Serving().Err)
	pending, err := m.manager.PendingRecovery()
	require.NoError(m.t, err)
	require.NotNil(m.t, pending)
	m.eventually("completes the recovery", func() error { return m.manager.CompleteRecovery(m.t.Context(), pending) })
	pending, err = m.manager.PendingRecovery()
	require.NoError(m.t, err)
	require.Nil(m.t, pending)
}

// A cluster is recovered from one member, and the two others come back after all. They are a majority of the history
// that has ended, and elect a leader; the recovered member makes both of them stop.
func TestAbandonedMajorityStops(t *testing.T) {
	all := three(t)
	a, b, c := all[0], all[1], all[2]
	for _, m := range all {
		m.stop()
	}
	a.recovered(b, c)
	b.start()
	c.start()
	b.serving()
	a.completed()
	for _, m := range []*member{b, c} {
		err := <-m.fatal
		require.ErrorIs(t, err, raftstore.ErrAbandoned)
		require.ErrorContains(t, err, fmt.Sprintf("member stopped: the data folder is abandoned, because the cluster "+
			"was recovered without this member: member eu-1 at %s refuses it: its data folder belongs to an abandoned "+
			"history: at 1970-01-01T00:00:00Z the cluster was recovered from member eu-1, with what that one had, up "+
			"to index ", a.address))
		m.stop()
	}
	require.Error(t, a.hasRow("eu-2"))
	require.Error(t, a.hasRow("eu-3"))
	a.serving()

	// A name that was struck out is free for a new member.
	require.NoError(t, os.RemoveAll(b.dir))
	require.NoError(t, os.MkdirAll(b.dir, 0o700))
	b.joined(a)
	a.serving()
}

// A refusal counts only from a member of the cluster: a stranger at the address of one stops nobody.
func TestStrangersAbandonNobody(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	b.stop()
	// A stranger at the address of b, which calls itself so, claims that the cluster was recovered without a.
	stranger := newMember(t, "eu-2")
	stranger.address = b.address
	stranger.form()
	stranger.stop()
	stranger.recovered(a)
	stranger.completed()
	a.stop()
	dialed := make(chan error, 1)
	a.dialed = func(address string, err error) {
		if address == stranger.address {
			select {
			case dialed <- err:
			default:
			}
		}
	}
	a.start()
	require.ErrorContains(t, <-dialed, "there is not that of a member", "nothing was sent to it")
	select {
	case err := <-a.fatal:
		t.Fatal(err)
	default:
	}
	stranger.stop()
	b.start()
	a.serving()
}
