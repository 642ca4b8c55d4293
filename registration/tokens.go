package registration

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
	"github.com/ententehq/entente/registration/agenttoken"
	"github.com/ententehq/entente/registration/entry"
)

// CreateAgentToken makes a token for one agent. It replaces the open token of that agent.
func (s *agentService) CreateAgentToken(
	ctx context.Context, m *ententev1.CreateAgentTokenRequest,
) (*ententev1.CreateAgentTokenResponse, error) {
	if err := entry.CheckName("agent", m.GetAgent()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	id, err := AgentID(s.room.cfg.Home, m.GetAgent())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if earlier := repeat.Earlier(ctx); earlier != nil {
		row, found, err := agentTokens.Get(s.room.cfg.Store.View(), earlier.Name)
		if err != nil || !found {
			return nil, cmp.Or(raftstore.StatusError(err), noToken(m.GetAgent()))
		}
		return &ententev1.CreateAgentTokenResponse{
			Revision: uint64(earlier.Revision), ExpireTime: row.Value.GetExpireTime(), SpiffeId: id.String(),
			AgentToken: s.room.tokenMessage(row.Key, row.Value),
		}, nil
	}
	ttl := agenttoken.DefaultTTL
	if m.GetTtl() != nil {
		ttl = m.GetTtl().AsDuration()
	}
	if ttl < time.Second || ttl > agenttoken.MaxTTL || !m.GetTtl().IsValid() && m.GetTtl() != nil {
		return nil, status.Errorf(codes.InvalidArgument, "ttl is %s; a token lasts from 1s to %s", ttl,
			agenttoken.MaxTTL)
	}
	secret, err := token.Choose(m.GetSecretSha256())
	if err != nil {
		return nil, err
	}
	if n := s.room.index.nodes(); n >= maxAgents {
		return nil, tooManyAgents(n)
	}
	now, tokenID := s.room.cfg.Now(), token.NewID()
	row := &statev1.AgentToken{
		SecretSha256: secret.Digest(), Agent: m.GetAgent(), CreateTime: timestamppb.New(now),
		ExpireTime: timestamppb.New(now.Add(ttl).Truncate(time.Second)), CreatedBy: caller(ctx),
	}
	for _, server := range s.room.cfg.Servers() {
		row.Addresses = append(row.Addresses, server.Address)
		row.Identities = append(row.Identities, server.Identity[:])
	}
	text, err := secret.Text(token.AgentPrefix, s.room.tokenContent(tokenID, row))
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	repeat.Generated(ctx, tokenID)
	revision, err := s.room.cfg.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := free(tx, m.GetAgent()); err != nil {
			return err
		}
		if err := makeRoom(tx, m.GetAgent(), now); err != nil {
			return err
		}
		return agentTokens.Put(tx, tokenID, row)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.CreateAgentTokenResponse{
		Revision: uint64(revision), Token: text, ExpireTime: row.GetExpireTime(), SpiffeId: id.String(),
		AgentToken: s.room.tokenMessage(tokenID, row),
	}, nil
}

func tooManyAgents(n int) error {
	return status.Errorf(codes.ResourceExhausted, "the cluster has %d agents, the most that it can have: evict those "+
		"of nodes that are gone", n)
}

// makeRoom deletes the open token of an agent and those that have expired. It returns an error if there are too many.
func makeRoom(tx *raftstore.Tx, agent string, now time.Time) error {
	rows, err := agentTokens.List(tx, "")
	if err != nil {
		return err
	}
	open := 0
	for _, row := range rows {
		if row.Value.GetAgent() != agent && isOpen(row.Value, now) {
			open++
		} else if err := agentTokens.Delete(tx, row.Key); err != nil {
			return err
		}
	}
	if open >= maxTokens {
		return status.Errorf(codes.ResourceExhausted, "%d tokens for agents are open, the most that there can be: "+
			"revoke some with 'entente agent token revoke', or wait until they are used or have expired", open)
	}
	return nil
}

func isOpen(t *statev1.AgentToken, now time.Time) bool { return now.Before(t.GetExpireTime().AsTime()) }

func noToken(agent string) error {
	return status.Errorf(codes.NotFound, "there is no open token for the agent %s: it was used, replaced or revoked, "+
		"or it has expired; 'entente agent token list' shows the open ones", agent)
}

// tokenContent returns what the text of a token has beside the secret.
func (r *Room) tokenContent(id string, row *statev1.AgentToken) *statev1.AgentTokenContent {
	return &statev1.AgentTokenContent{
		Id: id, Agent: row.GetAgent(), HomeTrustDomain: r.cfg.Home.Name(), Addresses: row.GetAddresses(),
		Identities: row.GetIdentities(), ExpireSeconds: row.GetExpireTime().GetSeconds(),
	}
}

// tokenMessage returns a token as the API shows it.
func (r *Room) tokenMessage(id string, row *statev1.AgentToken) *ententev1.AgentToken {
	m := &ententev1.AgentToken{
		Id: id, Agent: row.GetAgent(), CreateTime: row.GetCreateTime(), ExpireTime: row.GetExpireTime(),
		CreatedBy: row.GetCreatedBy(),
	}
	public, err := token.Public(token.AgentPrefix, r.tokenContent(id, row))
	if err == nil && len(row.GetIdentities()) > 0 { // an earlier version stored none
		m.PublicPart = public
	}
	return m
}

// ListAgentTokens returns the open tokens.
func (s *agentService) ListAgentTokens(
	ctx context.Context, m *ententev1.ListAgentTokensRequest,
) (*ententev1.ListAgentTokensResponse, error) {
	view, err := s.room.view(ctx, m.GetRead())
	if err != nil {
		return nil, err
	}
	out := &ententev1.ListAgentTokensResponse{Revision: uint64(view.Revision())}
	for row, err := range agentTokens.All(view, "") { // at most maxTokens
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		if isOpen(row.Value, s.room.cfg.Now()) {
			out.AgentTokens = append(out.AgentTokens, s.room.tokenMessage(row.Key, row.Value))
		}
	}
	slices.SortFunc(out.GetAgentTokens(), func(a, b *ententev1.AgentToken) int {
		return strings.Compare(a.GetAgent(), b.GetAgent())
	})
	return out, nil
}

// RevokeAgentToken deletes the open token of an agent.
func (s *agentService) RevokeAgentToken(
	ctx context.Context, m *ententev1.RevokeAgentTokenRequest,
) (*ententev1.RevokeAgentTokenResponse, error) {
	var was *ententev1.AgentToken
	revision, err := s.room.cfg.Store.Update(ctx, func(tx *raftstore.Tx) error {
		rows, err := agentTokens.List(tx, "")
		if err != nil {
			return err
		}
		i := slices.IndexFunc(rows, func(row raftstore.Row[*statev1.AgentToken]) bool {
			return row.Value.GetAgent() == m.GetAgent() && isOpen(row.Value, s.room.cfg.Now())
		})
		if i < 0 {
			return noToken(m.GetAgent())
		}
		was = s.room.tokenMessage(rows[i].Key, rows[i].Value)
		return agentTokens.Delete(tx, rows[i].Key)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.RevokeAgentTokenResponse{Revision: uint64(revision), AgentToken: was}, nil
}
