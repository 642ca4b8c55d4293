package registration

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
)

// agentService serves entente.v1.AgentService.
type agentService struct {
	ententev1.UnimplementedAgentServiceServer
	room *Room
}

// free returns an error if there is an agent with a name: a new one would take its place, and its entries.
func free(tx *raftstore.Tx, name string) error {
	row, found, err := agents.Get(tx, name)
	switch {
	case err != nil || !found:
		return err
	case row.Value.GetBan() != nil:
		return status.Errorf(codes.FailedPrecondition, "agent %s is banned: evict it with 'entente agent evict %s' "+
			"if it "+
			"may come back", name, name)
	}
	return status.Errorf(codes.AlreadyExists, "there is an agent %s, which attests itself by its key: if it has lost "+
		"that, evict it with 'entente agent evict %s' first", name, name)
}

// ListAgents returns a page of the agents.
func (s *agentService) ListAgents(
	ctx context.Context, m *ententev1.ListAgentsRequest,
) (*ententev1.ListAgentsResponse, error) {
	if err := checkPageSize(m.GetPageSize()); err != nil {
		return nil, err
	}
	view, err := s.room.view(ctx, m.GetRead())
	if err != nil {
		return nil, err
	}
	out, size := &ententev1.ListAgentsResponse{Revision: uint64(view.Revision())}, 0
	for row, err := range agents.All(view, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		if row.Key <= m.GetPageToken() {
			continue
		}
		shown, err := s.room.agentMessage(row)
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		n := len(out.GetAgents())
		if size += proto.Size(shown); n > 0 && (size > maxPageBytes || n == int(m.GetPageSize())) {
			out.NextPageToken = out.GetAgents()[n-1].GetName()
			break
		}
		out.Agents = append(out.Agents, shown)
	}
	return out, nil
}

// GetAgent returns one agent.
func (s *agentService) GetAgent(ctx context.Context, m *ententev1.GetAgentRequest) (*ententev1.Agent, error) {
	view, err := s.room.view(ctx, m.GetRead())
	if err != nil {
		return nil, err
	}
	row, found, err := agents.Get(view, m.GetName())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !found {
		return nil, notFound(m.GetName())
	}
	shown, err := s.room.agentMessage(row)
	return shown, raftstore.StatusError(err)
}

// EvictAgent deletes an agent. It attests itself by a new token only.
func (s *agentService) EvictAgent(
	ctx context.Context, m *ententev1.EvictAgentRequest,
) (*ententev1.EvictAgentResponse, error) {
	revision, effects, err := s.end(ctx, m, "is refused until it attests itself with a new token",
		func(tx *raftstore.Tx, a *statev1.Agent) error { return evict(tx, a, caller(ctx), s.room.cfg.Now()) })
	return &ententev1.EvictAgentResponse{Revision: revision, Effects: effects}, err
}

// BanAgent refuses an agent everything until it is evicted. Banning it again changes nothing.
func (s *agentService) BanAgent(
	ctx context.Context, m *ententev1.BanAgentRequest,
) (*ententev1.BanAgentResponse, error) {
	revision, effects, err := s.end(ctx, m, "is refused until it is evicted, whatever it attests itself with",
		func(tx *raftstore.Tx, a *statev1.Agent) error {
			if a.GetBan() != nil {
				return nil
			}
			a.Ban = &statev1.AgentBan{Time: timestamppb.New(s.room.cfg.Now()), By: caller(ctx)}
			return s.room.putAgent(tx, a)
		})
	return &ententev1.BanAgentResponse{Revision: revision, Effects: effects}, err
}

// end runs a change that ends what an agent can do, or returns its effects for a dry run.
func (s *agentService) end(ctx context.Context, m interface {
	GetName() string
	GetDryRun() bool
	GetEtag() string
}, what string, change func(*raftstore.Tx, *statev1.Agent) error,
) (revision uint64, effects []*ententev1.Effect, err error) {
	at, err := s.room.attempt(ctx, m.GetDryRun(), func(tx *raftstore.Tx) error {
		row, found, err := agents.Get(tx, m.GetName())
		if err != nil {
			return err
		}
		if !found {
			return notFound(m.GetName())
		}
		err = etag.Check(m.GetEtag(), "the agent "+m.GetName(), etag.Of(row.Value.GetGeneration()))
		if err != nil {
			return err
		}
		effects = nil
		if m.GetDryRun() {
			if effects, err = s.effects(tx, row.Value, what); err != nil {
				return err
			}
		}
		return change(tx, row.Value)
	})
	return uint64(at), effects, err
}

// effects returns what the end of an agent means.
func (s *agentService) effects(r raftstore.Reader, a *statev1.Agent, what string) ([]*ententev1.Effect, error) {
	id, err := AgentID(s.room.cfg.Home, a.GetName())
	if err != nil {
		return nil, err
	}
	lost, err := s.room.lostOf(r, s.room.index.Of(a.GetName(), a.GetSelectors()))
	return append([]*ententev1.Effect{{Kind: "agent", Subject: id.String(), Detail: what}}, lost...), err
}
