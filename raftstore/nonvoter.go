package raftstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/raft"
)

// AddNonvoter adds a member that receives the log but has no vote. The leader alone can. A new member begins this way: until it
// has caught up it could take a majority away from the others, and give them nothing. [Store.AddVoter] gives it its vote.
func (s *Store) AddNonvoter(ctx context.Context, member Server) error {
	if member.MemberID == "" || strings.Contains(member.MemberID, "@") || member.Address == "" {
		return fmt.Errorf("add member %q at %q: it needs an ID without '@', and an address", member.MemberID, member.Address)
	}
	for _, known := range s.Servers() {
		if known.MemberID == member.MemberID && known.Identity != member.Identity {
			return fmt.Errorf("add member %s: the cluster has a member of that name with another identity key; remove it first", member.MemberID)
		}
	}
	return s.change(ctx, "add member "+member.MemberID+" without a vote", func() raft.Future {
		return s.raft.AddNonvoter(serverID(member.MemberID, member.Identity), raft.ServerAddress(member.Address), 0, 0)
	})
}
