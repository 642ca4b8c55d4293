package raftstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Server is a member as the Raft configuration has it.
type Server struct {
	MemberID string
	// Identity is the SHA-256 of the SubjectPublicKeyInfo of its identity key.
	Identity [32]byte
	// Address is where the others reach it: host:port.
	Address       string
	Voter, Leader bool
}

// serverID names a Raft server: the member and its identity key. The key is part of what Raft agrees on, so that a
// member that lost its disk, and with it its votes, is never taken for the one before.
func serverID(memberID string, identity [32]byte) raft.ServerID {
	return raft.ServerID(memberID + "@" + base64.RawURLEncoding.EncodeToString(identity[:]))
}

// parseServerID is the inverse of serverID.
func parseServerID(id raft.ServerID) (memberID string, identity [32]byte, err error) {
	memberID, digest, ok := strings.Cut(string(id), "@")
	raw, decodeErr := base64.RawURLEncoding.Strict().DecodeString(digest)
	if !ok || memberID == "" || decodeErr != nil || len(raw) != len(identity) {
		return "", identity, fmt.Errorf(
			"raft server ID %q is not a member ID, '@' and the digest of an identity key",
			id,
		)
	}
	return memberID, [32]byte(raw), nil
}

// Servers is the Raft configuration of the cluster: which members it has, and which of them vote. Only the leader can
// change it.
type Servers struct {
	node *node
	life *lifetime
	log  hclog.Logger
}

// List returns the servers of the latest Raft configuration that this member has in its log, committed or not. It is
// right at once after a restart, before anything is applied.
func (s *Servers) List() []Server {
	future := s.node.raft.GetConfiguration()
	if future.Error() != nil {
		return nil // only when Raft has shut down
	}
	_, leader := s.node.raft.LeaderWithID()
	var servers []Server
	for _, rs := range future.Configuration().Servers {
		memberID, identity, err := parseServerID(rs.ID)
		if err != nil {
			s.log.Error("the Raft configuration has a server ID that this version cannot parse", "error", err)
			continue
		}
		servers = append(servers, Server{
			MemberID: memberID, Identity: identity, Address: string(rs.Address),
			Voter: rs.Suffrage == raft.Voter, Leader: rs.ID == leader,
		})
	}
	return servers
}

// Index returns the Raft index of the configuration that [Servers.List] returns.
func (s *Servers) Index() Revision { return Revision(s.node.disk.ConfigurationIndex()) }

// AddVoter adds a member to the cluster, or changes its address. Another server of the same member, which has another
// identity key, must be removed by [Servers.Remove] first.
func (s *Servers) AddVoter(ctx context.Context, member Server) error {
	if err := s.checkAddition(member); err != nil {
		return err
	}
	return s.change(ctx, "add member "+member.MemberID, func() raft.Future {
		return s.node.raft.AddVoter(
			serverID(member.MemberID, member.Identity), raft.ServerAddress(member.Address), 0, 0)
	})
}

// AddNonvoter adds a member that receives the log but has no vote. A new member begins this way: before it has caught
// up it could take a majority away from the others without contributing to one. [Servers.AddVoter] gives it its vote.
func (s *Servers) AddNonvoter(ctx context.Context, member Server) error {
	if err := s.checkAddition(member); err != nil {
		return err
	}
	return s.change(ctx, "add member "+member.MemberID+" without a vote", func() raft.Future {
		return s.node.raft.AddNonvoter(
			serverID(member.MemberID, member.Identity), raft.ServerAddress(member.Address), 0, 0)
	})
}

func (s *Servers) checkAddition(member Server) error {
	if member.MemberID == "" || strings.Contains(member.MemberID, "@") || member.Address == "" {
		return fmt.Errorf("add member %q at %q: it needs an ID without '@', and an address",
			member.MemberID, member.Address)
	}
	for _, known := range s.List() {
		if known.MemberID == member.MemberID && known.Identity != member.Identity {
			return fmt.Errorf("add member %s: the cluster has a member of that name with another identity key; "+
				"remove it first", member.MemberID)
		}
	}
	return nil
}

// Remove removes a member from the Raft configuration. The leader can remove itself.
func (s *Servers) Remove(ctx context.Context, memberID string) error {
	id, _, err := s.find(memberID)
	if err != nil {
		return fmt.Errorf("remove member %s: %w", memberID, err)
	}
	return s.change(ctx, "remove member "+memberID, func() raft.Future { return s.node.raft.RemoveServer(id, 0, 0) })
}

// TransferLeadership transfers leadership to another member, or to the one with the longest log if memberID is empty.
// When it returns without error this member no longer leads.
func (s *Servers) TransferLeadership(ctx context.Context, memberID string) error {
	if memberID == "" {
		return s.change(ctx, "transfer leadership", s.node.raft.LeadershipTransfer)
	}
	id, address, err := s.find(memberID)
	if err != nil {
		return fmt.Errorf("transfer leadership to %s: %w", memberID, err)
	}
	if id == s.node.id {
		return fmt.Errorf("transfer leadership to %s: it leads already", memberID)
	}
	return s.change(ctx, "transfer leadership to "+memberID, func() raft.Future {
		return s.node.raft.LeadershipTransferToServer(id, address)
	})
}

func (s *Servers) find(memberID string) (raft.ServerID, raft.ServerAddress, error) {
	for _, known := range s.List() {
		if known.MemberID == memberID {
			return serverID(known.MemberID, known.Identity), raft.ServerAddress(known.Address), nil
		}
	}
	return "", "", ErrNotMember
}

// change waits for a change of the cluster, for as long as ctx lasts; the change itself continues.
func (s *Servers) change(ctx context.Context, what string, start func() raft.Future) error {
	done := make(chan error, 1)
	if !s.life.Go(func() { done <- s.node.await(start()) }) {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	select {
	case err := <-done:
		if err = changeError(err); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w: %w", what, ErrUnknownOutcome, ctx.Err())
	}
}

// changeError turns the error of a change by Raft into one of the store's.
func changeError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrLeadershipLost): // the change is in the log, and the next leader may have it
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrClosed
	}
	return err
}
