package membership

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// clusterService serves administrators.
type clusterService struct {
	ententev1.UnimplementedClusterServiceServer
	store    *raftstore.Store
	self     string
	joins    *joins
	log      hclog.Logger
	leader   *leaderClient
	sections *sections
	changes  *changes
}

// lastHeardWait bounds how long a listing waits for the leader's times of the last heartbeats; without an answer that
// column is empty.
const lastHeardWait = time.Second

// ListMembers implements ClusterService.
func (s clusterService) ListMembers(
	ctx context.Context, req *ententev1.ListMembersRequest,
) (*ententev1.ListMembersResponse, error) {
	v, err := s.store.Read(ctx, raftstore.ReadOptions{
		Linearizable: req.GetRead().GetConsistency() != ententev1.Consistency_CONSISTENCY_STALE,
		MinRevision:  raftstore.Revision(req.GetRead().GetMinRevision()),
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	rows, err := Members.List(v, "")
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.ListMembersResponse{
		Revision: uint64(v.Revision()), ClusterId: v.ClusterID(),
		ClusterName: s.joins.cluster.Name, HomeTrustDomain: s.joins.cluster.HomeTrustDomain,
	}
	heard := s.lastHeard(ctx)
	servers := s.store.Servers().List()
	for _, row := range rows {
		m := &ententev1.Member{
			Id: row.Key, Region: row.Value.GetRegion(), Zone: row.Value.GetZone(), Address: row.Value.GetAddress(),
			Identity: hexDigest(row.Value.GetIdentity()), Version: row.Value.GetVersion(),
			JoinTime: row.Value.GetJoinTime(), LastContact: heard[row.Key],
		}
		if _, m.Alive, err = alive.Get(v, row.Key); err != nil {
			return nil, raftstore.StatusError(err)
		}
		for _, server := range servers {
			if server.MemberID == row.Key {
				m.Leader, m.Voter = server.Leader, server.Voter
			}
		}
		answer.Members = append(answer.Members, m)
	}
	return answer, nil
}

// lastHeard returns the times of the last heartbeats from the leader, or nil if it does not answer.
func (s clusterService) lastHeard(ctx context.Context) map[string]*timestamppb.Timestamp {
	ctx, cancel := context.WithTimeout(ctx, lastHeardWait)
	defer cancel()
	raw, err := s.sections.query(ctx, s.leader, heartbeatSection, nil)
	if err != nil {
		return nil
	}
	var answer ententev1.ListMembersResponse
	if err := proto.Unmarshal(raw, &answer); err != nil {
		return nil
	}
	heard := make(map[string]*timestamppb.Timestamp)
	for _, m := range answer.GetMembers() {
		heard[m.GetId()] = m.GetLastContact()
	}
	return heard
}

// RemoveMember implements ClusterService.
func (s clusterService) RemoveMember(
	ctx context.Context, req *ententev1.RemoveMemberRequest,
) (*ententev1.RemoveMemberResponse, error) {
	if err := memberid.CheckID(req.GetId()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if req.GetId() == s.self {
		return nil, status.Errorf(codes.FailedPrecondition, "member %s cannot remove itself, "+
			"because it would be cut off before it could answer; use another member", s.self)
	}
	var revision raftstore.Revision
	attempts, err := s.leader.forward(ctx,
		func(ctx context.Context) (err error) {
			revision, err = s.changes.remove(ctx, req.GetId(), req.GetCompromised())
			return err
		},
		func(ctx context.Context, leader ententev1.MemberServiceClient) error {
			answer, err := leader.RemoveServer(ctx, &ententev1.RemoveServerRequest{
				Id: req.GetId(), Compromised: req.GetCompromised(),
			})
			revision = raftstore.Revision(answer.GetRevision())
			return err
		})
	if attempts > 1 && status.Code(err) == codes.NotFound {
		// An earlier attempt removed it, and its answer was lost with a leader.
		return &ententev1.RemoveMemberResponse{Revision: uint64(s.store.View().Revision())}, nil
	}
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.RemoveMemberResponse{Revision: uint64(revision)}, nil
}

// TransferLeadership implements ClusterService.
func (s clusterService) TransferLeadership(
	ctx context.Context, req *ententev1.TransferLeadershipRequest,
) (*ententev1.TransferLeadershipResponse, error) {
	var leader string
	_, err := s.leader.forward(ctx,
		func(ctx context.Context) (err error) {
			leader, err = s.changes.transfer(ctx, req.GetId())
			return err
		},
		func(ctx context.Context, client ententev1.MemberServiceClient) error {
			answer, err := client.Transfer(ctx, &ententev1.TransferRequest{Id: req.GetId()})
			leader = answer.GetLeaderId()
			return err
		})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.TransferLeadershipResponse{LeaderId: leader}, nil
}

// CreateJoinToken implements ClusterService.
func (s clusterService) CreateJoinToken(
	ctx context.Context, req *ententev1.CreateJoinTokenRequest,
) (*ententev1.CreateJoinTokenResponse, error) {
	ttl := join.DefaultTTL
	if req.GetTtl() != nil {
		if err := req.GetTtl().CheckValid(); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "ttl is malformed: %v", err)
		}
		ttl = req.GetTtl().AsDuration()
	}
	return s.joins.createToken(ctx, ttl)
}

// SaveSnapshot implements ClusterService.
func (s clusterService) SaveSnapshot(
	_ *ententev1.SaveSnapshotRequest, stream ententev1.ClusterService_SaveSnapshotServer,
) error {
	w := &chunkWriter{send: func(p []byte) error { return stream.Send(&ententev1.SaveSnapshotResponse{Data: p}) }}
	if _, err := s.store.SaveSnapshot(stream.Context(), w); err != nil {
		return raftstore.StatusError(err)
	}
	return w.flush()
}

// RestoreSnapshot implements ClusterService.
func (s clusterService) RestoreSnapshot(stream ententev1.ClusterService_RestoreSnapshotServer) error {
	r := &chunkReader{receive: func() ([]byte, error) {
		m, err := stream.Recv()
		return m.GetData(), err
	}}
	result, err := s.store.RestoreSnapshot(stream.Context(), r)
	if err != nil {
		return raftstore.StatusError(err)
	}
	s.log.Warn("the replicated state was replaced by a snapshot", "revision", result.Revision,
		"snapshot", result.Snapshot, "adopted_its_cluster_id", result.Adopted)
	return stream.SendAndClose(&ententev1.RestoreSnapshotResponse{
		Revision: uint64(result.Revision), SnapshotRevision: uint64(result.Snapshot.Revision),
	})
}
