package membership

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/autopilot"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/repeat"
	"github.com/ententehq/entente/raftstore/snapshot"
)

// clusterService serves administrators.
type clusterService struct {
	ententev1.UnimplementedClusterServiceServer
	store    *raftstore.Store
	self     string
	tokens   *tokens
	cluster  join.Cluster
	dnsName  string
	log      hclog.Logger
	leader   *leaderClient
	sections *sections
	changes  *changes
	pilot    *autopilot.Pilot
	earlier  func() (id string, at time.Time)
	report   func(r raftstore.Reader, removed Removal, answer *ententev1.RemoveMemberResponse) error
	undone   func(r raftstore.Reader, at raftstore.Revision) ([]*ententev1.Effect, error)
}

func readOptions(o *ententev1.ReadOptions) raftstore.ReadOptions {
	return raftstore.ReadOptions{
		Linearizable: o.GetConsistency() != ententev1.Consistency_CONSISTENCY_STALE,
		MinRevision:  raftstore.Revision(o.GetMinRevision()),
	}
}

// lastHeardWait bounds how long a listing waits for the leader's times of the last heartbeats; without an answer that
// column is empty.
const lastHeardWait = time.Second

// ListMembers implements ClusterService.
func (s clusterService) ListMembers(
	ctx context.Context, req *ententev1.ListMembersRequest,
) (*ententev1.ListMembersResponse, error) {
	v, err := s.store.Read(ctx, readOptions(req.GetRead()))
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	rows, err := Members.List(v, "")
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.ListMembersResponse{
		Revision: uint64(v.Revision()), ClusterId: v.ClusterID(),
		ClusterName: s.cluster.Name, HomeTrustDomain: s.cluster.HomeTrustDomain, DnsName: s.dnsName,
	}
	heard := s.heardByLeader(ctx)
	servers := s.store.Servers().List()
	for _, row := range rows {
		m := &ententev1.Member{
			Id: row.Key, Region: row.Value.GetRegion(), Zone: row.Value.GetZone(), Address: row.Value.GetAddress(),
			Identity: hexDigest(row.Value.GetIdentity()), Version: row.Value.GetVersion(),
			JoinTime: row.Value.GetJoinTime(), LastContact: heard[row.Key].GetLastContact(),
			Alive:    heard[row.Key].GetAlive(),
			Diverged: heard[row.Key].GetDiverged(), Repairing: row.Value.GetRepair() != nil,
			Report: heard[row.Key].GetReport(), NonVoter: row.Value.GetNonVoter(),
		}
		if heard == nil {
			if err := s.withoutLeader(v, row, m); err != nil {
				return nil, raftstore.StatusError(err)
			}
		}
		for _, server := range servers {
			if server.MemberID == row.Key {
				m.Leader, m.Voter = server.Leader, server.Voter
			}
		}
		answer.Members = append(answer.Members, m)
	}
	waiting, err := live(v, s.tokens.now())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	for _, row := range waiting {
		if joiner := joinerMessage(row.Value); joiner != nil {
			answer.AwaitingApproval = append(answer.AwaitingApproval, joiner)
		}
	}
	return answer, nil
}

// GetAutopilot implements ClusterService.
func (s clusterService) GetAutopilot(
	ctx context.Context, req *ententev1.GetAutopilotRequest,
) (*ententev1.GetAutopilotResponse, error) {
	return s.pilot.Get(ctx, readOptions(req.GetRead()))
}

// UpdateAutopilot implements ClusterService.
func (s clusterService) UpdateAutopilot(
	ctx context.Context, req *ententev1.UpdateAutopilotRequest,
) (*ententev1.UpdateAutopilotResponse, error) {
	return s.pilot.Update(ctx, req)
}

// withoutLeader fills in what this member knows itself of when another was last heard.
func (s clusterService) withoutLeader(
	v *raftstore.View, row raftstore.Row[*statev1.Member], m *ententev1.Member,
) (err error) {
	if _, m.Alive, err = alive.Get(v, row.Key); err != nil {
		return err
	}
	led, until := s.earlier()
	switch row.Key {
	case s.self:
		m.LastContact = timestamppb.Now()
	case led:
		m.LastContact = timestamppb.New(until)
		m.Alive = m.Alive && time.Since(until) < silentAfter
	default:
		m.LastContact = row.Value.GetLastHeard()
	}
	return nil
}

// heardByLeader returns what the leader has of the members, by id: when each was last heard, and which have diverged.
// It returns nil if the leader does not answer.
func (s clusterService) heardByLeader(ctx context.Context) map[string]*ententev1.Member {
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
	heard := make(map[string]*ententev1.Member)
	for _, m := range answer.GetMembers() {
		heard[m.GetId()] = m
	}
	return heard
}

// RemoveMember implements ClusterService.
func (s clusterService) RemoveMember(
	ctx context.Context, req *ententev1.RemoveMemberRequest,
) (*ententev1.RemoveMemberResponse, error) {
	if err := memberid.CheckID(req.GetId()); err != nil {
		return nil, apierror.Invalid(apierror.InField("id", err))
	}
	if req.GetId() == s.self {
		return nil, status.Errorf(codes.FailedPrecondition, "member %s cannot remove itself, "+
			"because it would be cut off before it could answer; use another member", s.self)
	}
	if req.GetDryRun() {
		return s.removalEffects(ctx, req)
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
		revision, err = s.store.View().Revision(), nil
	}
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.RemoveMemberResponse{Revision: uint64(revision)}
	// The member is removed, whether or not the report can be made.
	v, err := s.store.Read(ctx, raftstore.ReadOptions{MinRevision: revision})
	if err == nil {
		err = s.report(v, Removal{MemberID: req.GetId(), Compromised: req.GetCompromised()}, answer)
	}
	if err != nil {
		return nil, status.Errorf(codes.Internal, "member %s is removed at revision %d, but what it can still do "+
			"cannot be shown: %v; see `entente authority list` and `entente access list`", req.GetId(), revision, err)
	}
	return answer, nil
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
	if earlier := repeat.Earlier(ctx); earlier != nil {
		return s.tokens.earlier(earlier)
	}
	ttl := join.DefaultTTL
	if req.GetTtl() != nil {
		if d := req.GetTtl(); !d.IsValid() {
			return nil, status.Errorf(codes.InvalidArgument,
				"ttl is not a duration: it has %d seconds and %d nanoseconds", d.GetSeconds(), d.GetNanos())
		}
		ttl = req.GetTtl().AsDuration()
	}
	return s.tokens.create(ctx, req, ttl)
}

// ListJoinTokens implements ClusterService.
func (s clusterService) ListJoinTokens(
	ctx context.Context, req *ententev1.ListJoinTokensRequest,
) (*ententev1.ListJoinTokensResponse, error) {
	v, err := s.store.Read(ctx, readOptions(req.GetRead()))
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	rows, err := live(v, s.tokens.now())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.ListJoinTokensResponse{Revision: uint64(v.Revision())}
	for _, row := range rows {
		answer.JoinTokens = append(answer.JoinTokens, s.tokens.message(row.Key, row.Value))
	}
	return answer, nil
}

// RevokeJoinToken implements ClusterService.
func (s clusterService) RevokeJoinToken(
	ctx context.Context, req *ententev1.RevokeJoinTokenRequest,
) (*ententev1.RevokeJoinTokenResponse, error) {
	return s.tokens.revoke(ctx, req.GetMemberId())
}

// ApproveMember implements ClusterService.
func (s clusterService) ApproveMember(
	ctx context.Context, req *ententev1.ApproveMemberRequest,
) (*ententev1.ApproveMemberResponse, error) {
	identity, err := hex.DecodeString(req.GetIdentity())
	if err != nil || len(identity) != 0 && len(identity) != len(memberid.Digest{}) {
		return nil, status.Errorf(codes.InvalidArgument,
			"identity %.80q is not the SHA-256 of an identity key, which has 64 hexadecimal digits; the log of the "+
				"joiner shows it", req.GetIdentity())
	}
	return s.tokens.approve(ctx, req.GetId(), identity)
}

// SaveSnapshot implements ClusterService.
func (s clusterService) SaveSnapshot(
	_ *ententev1.SaveSnapshotRequest, stream ententev1.ClusterService_SaveSnapshotServer,
) error {
	w := &snapshot.ChunkWriter{Send: func(p []byte) error {
		return stream.Send(&ententev1.SaveSnapshotResponse{Data: p})
	}}
	if _, err := s.store.Snapshots().Save(stream.Context(), w); err != nil {
		return raftstore.StatusError(err)
	}
	return w.Flush()
}

// RestoreSnapshot implements ClusterService.
func (s clusterService) RestoreSnapshot(stream ententev1.ClusterService_RestoreSnapshotServer) error {
	first, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if first.GetDryRun() {
		return s.restoreEffects(stream, first.GetSnapshot())
	}
	begun := false
	r := &snapshot.ChunkReader{Receive: func() ([]byte, error) {
		if !begun {
			begun = true
			return first.GetData(), err
		}
		m, err := stream.Recv()
		return m.GetData(), err
	}}
	result, err := s.store.Snapshots().Restore(stream.Context(), r)
	if err != nil {
		return raftstore.StatusError(err)
	}
	s.log.Warn("the replicated state was replaced by a snapshot", "revision", result.Revision,
		"snapshot", result.Snapshot, "adopted_its_cluster_id", result.Adopted)
	return stream.SendAndClose(&ententev1.RestoreSnapshotResponse{
		Revision: uint64(result.Revision), SnapshotRevision: uint64(result.Snapshot.Revision),
	})
}

// restoreEffects answers what the restore of a snapshot would do.
func (s clusterService) restoreEffects(
	stream ententev1.ClusterService_RestoreSnapshotServer, of *ententev1.SnapshotDescription,
) error {
	v, err := s.store.Read(stream.Context(), raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return raftstore.StatusError(err)
	}
	response := &ententev1.RestoreSnapshotResponse{
		Revision: uint64(v.Revision()), SnapshotRevision: of.GetRevision(),
	}
	if of.GetClusterId() != v.ClusterID() {
		response.Effects = []*ententev1.Effect{{
			Kind: "snapshot", Subject: "of another cluster, " + of.GetClusterId(),
			Detail: "is refused, unless this cluster is empty, which then continues that one",
		}}
		return stream.SendAndClose(response)
	}
	if response.Effects, err = s.undone(v, raftstore.Revision(of.GetRevision())); err != nil {
		return raftstore.StatusError(err)
	}
	return stream.SendAndClose(response)
}
