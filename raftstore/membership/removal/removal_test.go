package removal_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/removal"
)

func TestProof(t *testing.T) {
	voters := func(ids ...string) (servers []raftstore.Server) {
		for _, id := range ids {
			servers = append(servers, raftstore.Server{MemberID: id, Voter: true})
		}
		return servers
	}
	for name, test := range map[string]struct {
		servers []raftstore.Server
		answers []string
		want    string // empty: nothing is proved
	}{
		"nobody answers":      {servers: voters("a", "b", "c")},
		"no configuration":    {answers: []string{"a"}},
		"one of three":        {servers: voters("a", "b", "c"), answers: []string{"a"}},
		"one of three, again": {servers: voters("a", "b", "c"), answers: []string{"a", "a", "a"}},
		"the other of two":    {servers: voters("a", "b"), answers: []string{"a"}},
		"two of four":         {servers: voters("a", "b", "c", "d"), answers: []string{"a", "b"}},
		"without a vote": {
			servers: append(voters("a", "b", "c"), raftstore.Server{MemberID: "d"}), answers: []string{"a", "d"},
		},
		"unknown in its own members": {servers: voters("a", "b", "c"), answers: []string{"a", "x", "y"}},
		"two of three": {
			servers: voters("a", "b", "c"), answers: []string{"b", "a"},
			want: "removed; a and b answer so, a majority of the members with a vote",
		},
		"three of five": {
			servers: voters("a", "b", "c", "d", "e"), answers: []string{"e", "a", "b"},
			want: "removed; a and b and e answer so, a majority of the members with a vote",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var proof removal.Proof
			seen := map[string]bool{}
			for _, by := range test.answers {
				require.Equal(t, !seen[by], proof.Add(by, "removed"))
				seen[by] = true
			}
			reason, proved := proof.Judge(test.servers)
			require.Equal(t, test.want != "", proved)
			require.Equal(t, test.want, reason)
		})
	}
}

func TestApplied(t *testing.T) {
	row := &statev1.Member{RemoveTime: timestamppb.New(time.Unix(0, 0))}
	require.Equal(t, "the cluster has committed its removal at 1970-01-01T00:00:00Z, which it has applied",
		removal.Applied(row))
}
