package quorum

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// servers returns a configuration. A lower-case letter is a server without a vote.
func servers(names string) (all []raft.Server) {
	for _, name := range strings.Split(names, "") {
		s := raft.Server{ID: raft.ServerID(name), Suffrage: raft.Voter}
		if strings.ToLower(name) == name {
			s.Suffrage = raft.Nonvoter
		}
		all = append(all, s)
	}
	return all
}

func TestMajority(t *testing.T) {
	for _, c := range []struct {
		why, servers, acknowledged string
		want                       bool
	}{
		{"a cluster of one", "A", "", true},
		{"one voter, and a server without a vote that is silent", "Ab", "", true},
		{"two voters need both", "AB", "", false},
		{"two voters", "AB", "B", true},
		{"one of three is no majority", "ABC", "", false},
		{"two of three", "ABC", "C", true},
		{"servers without a vote do not count", "ABCde", "de", false},
		{"they are not counted as voters either", "ABCde", "B", true},
		{"two of four are no majority", "ABCD", "B", false},
		{"three of four", "ABCD", "BD", true},
		{"three of five", "ABCDE", "CE", true},
		{"this member was removed, and does not count", "BC", "B", false},
		{"this member was removed, and all others agree", "BC", "BC", true},
		{"this member has no vote", "aBC", "B", false},
		{"a server outside of the configuration does not count", "ABC", "X", false},
		{"no configuration", "", "B", false},
	} {
		got := majority("A", servers(c.servers), func(id raft.ServerID) bool {
			return strings.Contains(c.acknowledged, string(id))
		})
		assert.Equal(t, c.want, got, c.why)
	}
}

// Only what was sent after a proof began, in its term, counts for it.
func TestProof(t *testing.T) {
	a := NewAcks()
	proved := func(p Proof) bool {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		err := p.Await(ended)
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
		return err == nil
	}
	begin := func(term uint64) Proof { return a.Begin(term, "A", servers("ABC")) }

	before := a.Sending("B", 3)
	first := begin(3)
	before()
	require.False(t, proved(first), "it was sent before the proof began, and is answered after")
	after := a.Sending("B", 3)
	require.False(t, proved(first), "it was sent, and is not answered yet")
	second := begin(3)
	after()
	require.True(t, proved(first))
	require.False(t, proved(second), "it was sent between the two")
	a.Sending("C", 3)()
	require.True(t, proved(second), "another voter is enough")
	late := a.Sending("C", 3)
	a.Sending("C", 3)()
	before()
	late()
	require.True(t, proved(second), "an older answer that arrives later takes nothing back")

	other := begin(5)
	a.Sending("B", 4)()
	require.False(t, proved(other), "an earlier term of this member")
	a.Sending("B", 5)()
	require.True(t, proved(other))
	require.True(t, proved(a.Begin(6, "A", servers("Ab"))), "a cluster of one voter needs nobody")

	waits := begin(5)
	done := make(chan error)
	go func() { done <- waits.Await(t.Context()) }()
	a.Sending("C", 5)()
	require.NoError(t, <-done, "it is woken by an acknowledgment")
}
