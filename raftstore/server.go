package raftstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/raft"
)

// Server is a member as the Raft configuration knows it.
type Server struct {
	MemberID string
	// Identity is the SHA-256 of the SubjectPublicKeyInfo of its identity key.
	Identity [32]byte
	// Address is where the others reach it: host:port.
	Address       string
	Voter, Leader bool
}

// serverID names a Raft server: the member and its identity key. So the key is part of what Raft agrees on, and a member that
// lost its disk, and with it its votes, can never be taken for the one before.
func serverID(memberID string, identity [32]byte) raft.ServerID {
	return raft.ServerID(memberID + "@" + base64.RawURLEncoding.EncodeToString(identity[:]))
}

// parseServerID is the inverse of serverID.
func parseServerID(id raft.ServerID) (memberID string, identity [32]byte, err error) {
	memberID, digest, ok := strings.Cut(string(id), "@")
	raw, decodeErr := base64.RawURLEncoding.Strict().DecodeString(digest)
	if !ok || memberID == "" || decodeErr != nil || len(raw) != len(identity) {
		return "", identity, fmt.Errorf("raft server ID %q is not a member ID, '@' and the digest of an identity key", id)
	}
	return memberID, [32]byte(raw), nil
}

// Servers returns the members of the latest Raft configuration that this member has in its log, committed or not. It is
// right at once after a restart, before anything is applied.
func (s *Store) Servers() []Server {
	future := s.raft.GetConfiguration()
	if future.Error() != nil {
		return nil // only when Raft has shut down
	}
	_, leader := s.raft.LeaderWithID()
	var servers []Server
	for _, rs := range future.Configuration().Servers {
		memberID, identity, err := parseServerID(rs.ID)
		if err != nil {
			s.log.Error("the Raft configuration names a server that is none of ours", "error", err)
			continue
		}
		servers = append(servers, Server{
			MemberID: memberID, Identity: identity, Address: string(rs.Address),
			Voter: rs.Suffrage == raft.Voter, Leader: rs.ID == leader,
		})
	}
	return servers
}

// ConfigurationIndex returns the Raft index of the configuration that [Store.Servers] reports.
func (s *Store) ConfigurationIndex() Revision { return s.configurations.latest() }

// Bootstrap forms a cluster of this member alone. It fails when the member has any state already.
func (s *Store) Bootstrap() error {
	err := s.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: s.id, Address: raft.ServerAddress(s.config.Address),
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("bootstrap a cluster: member %s has state of a cluster already; start it without bootstrapping, or with an empty data folder: %w", s.config.MemberID, err)
	}
	if err != nil {
		return fmt.Errorf("bootstrap a cluster: %w", err)
	}
	return nil
}

// HasState reports whether this member was part of a cluster before.
func (s *Store) HasState() bool { return s.hadState }

// AddVoter adds a member to the cluster, or changes its address. The leader alone can. Another server of the same member,
// which has another identity key, is removed by [Store.RemoveServer] first.
func (s *Store) AddVoter(ctx context.Context, member Server) error {
	if err := s.checkAddition(member); err != nil {
		return err
	}
	return s.change(ctx, "add member "+member.MemberID, func() raft.Future {
		return s.raft.AddVoter(serverID(member.MemberID, member.Identity), raft.ServerAddress(member.Address), 0, 0)
	})
}

// AddNonvoter adds a member that receives the log but has no vote. The leader alone can. A new member begins this way: until it
// has caught up it could take a majority away from the others, and give them nothing. [Store.AddVoter] gives it its vote.
func (s *Store) AddNonvoter(ctx context.Context, member Server) error {
	if err := s.checkAddition(member); err != nil {
		return err
	}
	return s.change(ctx, "add member "+member.MemberID+" without a vote", func() raft.Future {
		return s.raft.AddNonvoter(serverID(member.MemberID, member.Identity), raft.ServerAddress(member.Address), 0, 0)
	})
}

func (s *Store) checkAddition(member Server) error {
	if member.MemberID == "" || strings.Contains(member.MemberID, "@") || member.Address == "" {
		return fmt.Errorf("add member %q at %q: it needs an ID without '@', and an address", member.MemberID, member.Address)
	}
	for _, known := range s.Servers() {
		if known.MemberID == member.MemberID && known.Identity != member.Identity {
			return fmt.Errorf("add member %s: the cluster has a member of that name with another identity key; remove it first", member.MemberID)
		}
	}
	return nil
}

// RemoveServer strikes a member out of the Raft configuration. The leader alone can, and it can remove itself.
func (s *Store) RemoveServer(ctx context.Context, memberID string) error {
	id, _, err := s.find(memberID)
	if err != nil {
		return fmt.Errorf("remove member %s: %w", memberID, err)
	}
	return s.change(ctx, "remove member "+memberID, func() raft.Future { return s.raft.RemoveServer(id, 0, 0) })
}

// TransferLeadership hands the lead to another member, or to the one that is furthest when memberID is empty. The leader
// alone can. When it returns without error this member no longer leads.
func (s *Store) TransferLeadership(ctx context.Context, memberID string) error {
	if memberID == "" {
		return s.change(ctx, "transfer the lead", s.raft.LeadershipTransfer)
	}
	id, address, err := s.find(memberID)
	if err != nil {
		return fmt.Errorf("transfer the lead to %s: %w", memberID, err)
	}
	if id == s.id {
		return fmt.Errorf("transfer the lead to %s: it leads already", memberID)
	}
	return s.change(ctx, "transfer the lead to "+memberID, func() raft.Future {
		return s.raft.LeadershipTransferToServer(id, address)
	})
}

func (s *Store) find(memberID string) (raft.ServerID, raft.ServerAddress, error) {
	for _, known := range s.Servers() {
		if known.MemberID == memberID {
			return serverID(known.MemberID, known.Identity), raft.ServerAddress(known.Address), nil
		}
	}
	return "", "", ErrNotMember
}

// change waits for a change of the cluster, for as long as ctx lasts; the change itself goes on.
func (s *Store) change(ctx context.Context, what string, start func() raft.Future) error {
	done := make(chan error, 1)
	if !s.tasks.Go(func() { done <- s.await(start()) }) {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	select {
	case err := <-done:
		switch {
		case err == nil:
			return nil
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost):
			return fmt.Errorf("%s: %w: %w", what, ErrNotLeader, err)
		case errors.Is(err, raft.ErrRaftShutdown):
			return fmt.Errorf("%s: %w", what, ErrClosed)
		}
		return fmt.Errorf("%s: %w", what, err)
	case <-ctx.Done():
		return fmt.Errorf("%s: whether it is done is not known yet: %w", what, ctx.Err())
	}
}
