package raftstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// never is longer than any test.
const never = time.Hour

// keepsLead makes a member believe in its lead until it learns of another, as one that was paused does when it resumes:
// its lease is as it was. The member never starts an election.
func keepsLead(member int) func(i int, c *raftstore.Config) {
	return func(i int, c *raftstore.Config) {
		if i == member {
			c.Timing.Heartbeat, c.Timing.Election, c.Timing.Lease = never, never, never
		}
		c.Timing.LeaderWait = time.Minute
	}
}

// leadFirst gives the lead to a member, and lets no other start an election.
func leadFirst(t *testing.T, c *raftstoretest.Cluster, member int, others ...int) *raftstore.Store {
	t.Helper()
	s := c.Store(member)
	for !s.IsLeader() {
		for _, i := range others {
			raftstore.SetElectionTimeout(c.Store(i), 150*time.Millisecond)
		}
		from := c.Store(c.Leader())
		for _, i := range others {
			raftstore.SetElectionTimeout(c.Store(i), never)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if from == s || from.Servers().TransferLeadership(ctx, s.MemberID()) == nil {
			raftstoretest.AwaitLeadership(t, s)
		}
		cancel()
	}
	return s
}

func write(t *testing.T, s *raftstore.Store, value string) {
	t.Helper()
	_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
		return words.Put(tx, "row", wrapperspb.String(value))
	})
	require.NoError(t, err)
}

// read does a linearizable read in the background.
func read(t *testing.T, s *raftstore.Store) <-chan string {
	value := make(chan string, 1)
	go func() {
		v, err := s.Read(t.Context(), raftstore.ReadOptions{Linearizable: true})
		if err != nil {
			value <- "error: " + err.Error()
			return
		}
		row, _, err := words.Get(v, "row")
		if err != nil {
			value <- "error: " + err.Error()
			return
		}
		value <- row.Value.GetValue()
	}()
	return value
}

// A leader was paused while others elected another one and wrote. The first things that it finds when it resumes are
// answers from before, which confirm its lead. A read through it must not return what it had.
func TestAnswersFromBeforeProveNoLead(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3, keepsLead(2))
	paused := leadFirst(t, c, 2, 0, 1)
	write(t, paused, "old")
	c.AwaitCaughtUp()

	held := c.Hold(2)
	release, err := held.AwaitAnswers(t.Context(), 0, 1)
	require.NoError(t, err)
	for i := range 2 {
		raftstore.SetElectionTimeout(c.Store(i), 150*time.Millisecond)
	}
	write(t, c.Store(c.Leader(0, 1)), "new")
	require.True(t, paused.IsLeader(), "it has learned of nothing")

	resumed := make(chan raft.Future, 16)
	raftstore.OnVerification(paused, func(verified raft.Future) { resumed <- verified })
	value := read(t, paused)
	verified := <-resumed
	release()
	require.NoError(t, verified.Error(), "Raft takes the lead for verified by the answers from before")
	held.End()
	require.Equal(t, "new", <-value)
}

// A leader is cut off from the other voters, together with a server that has no vote. What that acknowledges proves no
// lead.
func TestServersWithoutVoteProveNoLead(t *testing.T) {
	c := raftstoretest.NewCluster(t, 4, keepsLead(2))
	leader := leadFirst(t, c, 2, 0, 1, 3)
	require.NoError(t, leader.Servers().Remove(t.Context(), "member-4"))
	without := c.Store(3)
	require.NoError(t, leader.Servers().AddNonvoter(t.Context(), raftstoretest.Server(3)))
	write(t, leader, "old")
	require.NoError(t, raftstore.AwaitAcknowledgment(t.Context(), leader, without))

	c.Partition(2, 3)
	for i := range 2 {
		raftstore.SetElectionTimeout(c.Store(i), 150*time.Millisecond)
	}
	write(t, c.Store(c.Leader(0, 1)), "new")
	require.True(t, leader.IsLeader(), "it has learned of nothing")

	begun := make(chan raft.Future, 16)
	raftstore.OnVerification(leader, func(verified raft.Future) { begun <- verified })
	value := read(t, leader)
	require.NoError(t, (<-begun).Error(), "Raft counts the server without a vote")
	c.Heal()
	require.Equal(t, "new", <-value)
}
