package raftstore

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// TestWhatRaftNeverAnswersEnds asks a Raft that has ended. It refuses some of the requests, and takes others in for nobody.
func TestWhatRaftNeverAnswersEnds(t *testing.T) {
	s, err := Open(Config{MemberID: "m1"})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	for range 50 { // as many as its channel takes in
		require.ErrorIs(t, s.await(s.raft.VerifyLeader()), raft.ErrRaftShutdown)
	}
}
