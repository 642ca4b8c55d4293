package raftstore

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Raft refuses some requests after its end, and accepts others that it never answers. None of them blocks.
func TestRequestsEndWithRaft(t *testing.T) {
	s, err := Open(Config{MemberID: "m1"})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	for range 50 { // more than its channel holds
		require.ErrorIs(t, s.node.await(s.node.raft.VerifyLeader()), raft.ErrRaftShutdown)
	}
}
