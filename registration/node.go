package registration

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
)

// nodeService serves entente.v1.NodeService, to agents alone.
type nodeService struct {
	ententev1.UnimplementedNodeServiceServer
	room *Room
}

// agent returns the name of the agent that calls. Package access has verified that it is attested and not banned.
func (s *nodeService) agent(ctx context.Context) (string, error) {
	id, _ := access.CallerFrom(ctx).SPIFFEID()
	name, ok := nameOf(s.room.cfg.Home, id)
	if !ok {
		return "", status.Errorf(codes.PermissionDenied, "%s is not an agent: only agents call this, for themselves",
			access.CallerFrom(ctx))
	}
	return name, nil
}

// RenewAgent issues the agent's own SVID again.
func (s *nodeService) RenewAgent(
	ctx context.Context, m *ententev1.RenewAgentRequest,
) (*ententev1.RenewAgentResponse, error) {
	name, err := s.agent(ctx)
	if err != nil {
		return nil, err
	}
	key, err := s.room.parseCSR(m.GetCsr())
	if err != nil {
		return nil, err
	}
	svid, err := s.room.issueAgent(ctx, name, key, m.GetCsr())
	if err != nil {
		return nil, err
	}
	return &ententev1.RenewAgentResponse{Svid: svid, Servers: s.room.servers()}, nil
}

// WatchEntries sends the entries of the agent, and then each change.
func (s *nodeService) WatchEntries(
	_ *ententev1.WatchEntriesRequest, stream grpc.ServerStreamingServer[ententev1.WatchEntriesResponse],
) error {
	ctx := stream.Context()
	name, err := s.agent(ctx)
	if err != nil {
		return err
	}
	if err := s.room.index.await(ctx); err != nil {
		return status.FromContextError(err).Err()
	}
	set, end := s.room.index.subscribe(name)
	defer end()
	w := entryWatch{
		index: s.room.index, servers: s.room.servers, agent: name, sent: map[string]struct{}{}, send: stream.Send,
	}
	return set.Each(ctx, feed.Pace{}, func(a feed.Affected[string]) error {
		return w.deliver(uint64(s.room.cfg.Store.View().Revision()), a)
	})
}

// entryWatch is the state of one stream of entries.
type entryWatch struct {
	index   *Index
	servers func() []*ententev1.AgentServer
	agent   string
	sent    map[string]struct{}
	// named are the members that were sent last.
	named []*ententev1.AgentServer
	send  func(*ententev1.WatchEntriesResponse) error
}

// maxWatchBytes is about the size of one message of the stream.
const maxWatchBytes = 512 << 10

// deliver sends the whole state, or what changed.
func (w *entryWatch) deliver(revision uint64, a feed.Affected[string]) error {
	next := &ententev1.WatchEntriesResponse{Revision: revision, Whole: a.All}
	if now := w.servers(); !slices.EqualFunc(now, w.named, sameServer) {
		next.Servers, w.named = now, now
	}
	size := 0
	add := func(e *ententev1.Entry) error {
		if n := proto.Size(e); size > 0 && size+n > maxWatchBytes {
			next.More = true
			if err := w.send(next); err != nil {
				return err
			}
			next, size = &ententev1.WatchEntriesResponse{Revision: revision}, 0
		}
		size += proto.Size(e)
		w.sent[e.GetId()] = struct{}{}
		next.Changed = append(next.Changed, e)
		return nil
	}
	if a.All {
		clear(w.sent)
		for _, e := range w.index.all(w.agent) {
			if err := add(e); err != nil {
				return err
			}
		}
		return w.send(next)
	}
	for id := range a.Keys {
		if e, ok := w.index.get(id, w.agent); ok {
			if err := add(e); err != nil {
				return err
			}
		} else if _, had := w.sent[id]; had {
			delete(w.sent, id)
			next.Deleted = append(next.Deleted, id)
		}
	}
	if len(next.GetChanged()) == 0 && len(next.GetDeleted()) == 0 && len(next.GetServers()) == 0 {
		return nil
	}
	return w.send(next)
}

func sameServer(a, b *ententev1.AgentServer) bool { return proto.Equal(a, b) }

// maxBatch bounds a batch of requests.
const maxBatch = 100

// IssueEntryX509SVIDs signs X509-SVIDs for entries of the agent.
func (s *nodeService) IssueEntryX509SVIDs(
	ctx context.Context, m *ententev1.IssueEntryX509SVIDsRequest,
) (*ententev1.IssueEntryX509SVIDsResponse, error) {
	name, err := s.agent(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(m.GetRequests()); n == 0 || n > maxBatch {
		return nil, status.Errorf(codes.InvalidArgument, "requests has %d entries; send 1 to %d", n, maxBatch)
	}
	out := &ententev1.IssueEntryX509SVIDsResponse{}
	for _, one := range m.GetRequests() {
		svid, err := s.issueX509(ctx, name, one)
		if err != nil {
			code, failed := status.Code(raftstore.StatusError(err)), status.Convert(raftstore.StatusError(err))
			out.Results = append(out.Results, &ententev1.X509SVIDResult{
				Result: &ententev1.X509SVIDResult_Failure{Failure: &ententev1.IssueFailure{
					Code: int32(code), Message: failed.Message(), //nolint:gosec // a gRPC code
				}},
			})
			continue
		}
		svid.Bundle = nil // the agent watches bundles
		out.Results = append(out.Results, &ententev1.X509SVIDResult{Result: &ententev1.X509SVIDResult_Svid{Svid: svid}})
	}
	return out, nil
}

func (s *nodeService) issueX509(
	ctx context.Context, agent string, m *ententev1.EntryX509Request,
) (*ententev1.IssueX509SVIDResponse, error) {
	e, ttl, err := s.room.issuable(agent, m.GetEntryId())
	if err != nil {
		return nil, err
	}
	return s.room.cfg.Signer.SVIDService().IssueX509SVID(ctx, &ententev1.IssueX509SVIDRequest{
		SpiffeId: e.SPIFFEID.String(), Csr: m.GetCsr(), Ttl: durationpb.New(ttl.X509), DnsNames: e.DNSNames,
	})
}

// IssueEntryJWTSVID signs a JWT-SVID for an entry of the agent.
func (s *nodeService) IssueEntryJWTSVID(
	ctx context.Context, m *ententev1.IssueEntryJWTSVIDRequest,
) (*ententev1.IssueJWTSVIDResponse, error) {
	name, err := s.agent(ctx)
	if err != nil {
		return nil, err
	}
	e, ttl, err := s.room.issuable(name, m.GetEntryId())
	if err != nil {
		return nil, raftstore.StatusError(errors.Join(err))
	}
	return s.room.cfg.Signer.SVIDService().IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{
		SpiffeId: e.SPIFFEID.String(), Audience: m.GetAudience(), Ttl: durationpb.New(ttl.JWT),
	})
}
