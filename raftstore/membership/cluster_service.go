package membership

import (
	"context"
	"crypto/sha256"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// ClusterService manages the members and the replicated state as a whole. Any member serves it; who may call
// it is decided before it is called.
func (m *Manager) ClusterService() ententev1.ClusterServiceServer { return clusterService{m: m} }

type clusterService struct {
	ententev1.UnimplementedClusterServiceServer
	m *Manager
}

// lastHeardWait bounds how long a listing waits for the leader to say when it last heard from whom; without
// an answer that column stays empty.
const lastHeardWait = time.Second

func (s clusterService) ListMembers(ctx context.Context, req *ententev1.ListMembersRequest) (*ententev1.ListMembersResponse, error) {
	m := s.m
	v, err := m.Store.Read(ctx, raftstore.ReadOptions{
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
		Revision: uint64(v.Revision()), ClusterId: v.ClusterID(), ClusterName: m.ClusterName, HomeTrustDomain: m.HomeTrustDomain,
	}
	heard := m.lastHeardOf(ctx)
	servers := m.Store.Servers().List()
	for _, row := range rows {
		member := &ententev1.Member{
			Id: row.Key, Region: row.Value.GetRegion(), Zone: row.Value.GetZone(), Address: row.Value.GetAddress(),
			Identity: hexDigest(row.Value.GetIdentity()), Version: row.Value.GetVersion(), JoinTime: row.Value.GetJoinTime(),
			LastHeard: heard[row.Key],
		}
		if _, member.Alive, err = alive.Get(v, row.Key); err != nil {
			return nil, raftstore.StatusError(err)
		}
		for _, server := range servers {
			if server.MemberID == row.Key {
				member.Leader, member.Voter = server.Leader, server.Voter
			}
		}
		answer.Members = append(answer.Members, member)
	}
	return answer, nil
}

// lastHeardOf asks the leader; nil if it does not answer.
func (m *Manager) lastHeardOf(ctx context.Context) map[string]*timestamppb.Timestamp {
	ctx, cancel := context.WithTimeout(ctx, lastHeardWait)
	defer cancel()
	raw, err := m.Query(ctx, ownSection, nil)
	if err != nil {
		return nil
	}
	var answer ententev1.ListMembersResponse
	if err := proto.Unmarshal(raw, &answer); err != nil {
		return nil
	}
	heard := make(map[string]*timestamppb.Timestamp)
	for _, member := range answer.GetMembers() {
		heard[member.GetId()] = member.GetLastHeard()
	}
	return heard
}

func (s clusterService) RemoveMember(ctx context.Context, req *ententev1.RemoveMemberRequest) (*ententev1.RemoveMemberResponse, error) {
	m := s.m
	if err := CheckID(req.GetId()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if req.GetId() == m.Self.ID {
		return nil, status.Errorf(codes.FailedPrecondition, "member %s cannot remove itself, since it would be cut off before it could answer; ask another member", m.Self.ID)
	}
	var revision raftstore.Revision
	tries, err := m.onLeader(ctx,
		func(ctx context.Context) (err error) {
			revision, err = m.strike(ctx, req.GetId(), req.GetCompromised())
			return err
		},
		func(ctx context.Context, leader ententev1.MemberServiceClient) error {
			answer, err := leader.Strike(ctx, &ententev1.StrikeRequest{Id: req.GetId(), Compromised: req.GetCompromised()})
			revision = raftstore.Revision(answer.GetRevision())
			return err
		})
	if tries > 1 && status.Code(err) == codes.NotFound {
		// An earlier try did it, and its answer was lost with a leader.
		return &ententev1.RemoveMemberResponse{Revision: uint64(m.Store.View().Revision())}, nil
	}
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.RemoveMemberResponse{Revision: uint64(revision)}, nil
}

func (s clusterService) TransferLeadership(ctx context.Context, req *ententev1.TransferLeadershipRequest) (*ententev1.TransferLeadershipResponse, error) {
	m := s.m
	var leader string
	_, err := m.onLeader(ctx,
		func(ctx context.Context) (err error) {
			leader, err = m.transfer(ctx, req.GetId())
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

// maxOpenTokens bounds the tokens that wait for their joiners.
const maxOpenTokens = 256

func (s clusterService) CreateJoinToken(ctx context.Context, req *ententev1.CreateJoinTokenRequest) (*ententev1.CreateJoinTokenResponse, error) {
	m := s.m
	ttl := DefaultTokenTTL
	if req.GetTtl() != nil {
		if err := req.GetTtl().CheckValid(); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "ttl is malformed: %v", err)
		}
		ttl = req.GetTtl().AsDuration()
	}
	if ttl < time.Second || ttl > MaxTokenTTL {
		return nil, status.Errorf(codes.InvalidArgument, "ttl is %s; a join token lasts from 1s to %s", ttl, MaxTokenTTL)
	}
	fellows, _ := m.Directory.Fellows()
	var identities []Digest
	for _, f := range fellows {
		identities = append(identities, f.Identity)
	}
	now := m.Now()
	token := NewToken(m.ClusterName, now.Add(ttl), identities)
	text, err := token.Text()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	secret := sha256.Sum256(token.Secret[:])
	revision, err := m.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := m.forgetTokens(tx, now); err != nil {
			return err
		}
		return joinTokens.Put(tx, token.ID, &statev1.JoinToken{
			SecretSha256: secret[:], CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(token.Expires),
		})
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.CreateJoinTokenResponse{Revision: uint64(revision), Token: text, ExpireTime: timestamppb.New(token.Expires)}, nil
}

// forgetTokens deletes tokens that expired long ago, and refuses a new one while very many are open.
func (m *Manager) forgetTokens(tx *raftstore.Tx, now time.Time) error {
	rows, err := joinTokens.List(tx, "")
	if err != nil {
		return err
	}
	open := 0
	for _, row := range rows {
		switch expires := row.Value.GetExpireTime().AsTime(); {
		case now.After(expires.Add(tokenKept)):
			if err := joinTokens.Delete(tx, row.Key); err != nil {
				return err
			}
		case row.Value.GetRedemption() == nil && now.Before(expires):
			open++
		}
	}
	if open >= maxOpenTokens {
		return status.Errorf(codes.ResourceExhausted, "%d join tokens are open, the most that there can be; use them, or wait until they expire", open)
	}
	return nil
}

// snapshotChunk is how much of a snapshot goes into one message: a small part of gRPC's limit of 4 MiB.
const snapshotChunk = 256 << 10

func (s clusterService) SaveSnapshot(_ *ententev1.SaveSnapshotRequest, stream ententev1.ClusterService_SaveSnapshotServer) error {
	w := &chunkWriter{send: func(p []byte) error { return stream.Send(&ententev1.SaveSnapshotResponse{Data: p}) }}
	if _, err := s.m.Store.SaveSnapshot(stream.Context(), w); err != nil {
		return raftstore.StatusError(err)
	}
	return w.flush()
}

func (s clusterService) RestoreSnapshot(stream ententev1.ClusterService_RestoreSnapshotServer) error {
	r := &chunkReader{receive: func() ([]byte, error) {
		m, err := stream.Recv()
		return m.GetData(), err
	}}
	result, err := s.m.Store.RestoreSnapshot(stream.Context(), r)
	if err != nil {
		return raftstore.StatusError(err)
	}
	s.m.Logger.Warn("the replicated state was replaced by a snapshot", "revision", result.Revision, "snapshot", result.Snapshot, "adopted_its_cluster_id", result.Adopted)
	return stream.SendAndClose(&ententev1.RestoreSnapshotResponse{
		Revision: uint64(result.Revision), SnapshotRevision: uint64(result.Snapshot.Revision),
	})
}

// chunkWriter sends what is written to it in messages of one size.
type chunkWriter struct {
	send    func([]byte) error
	pending []byte
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		n := min(len(p), snapshotChunk-len(w.pending))
		w.pending = append(w.pending, p[:n]...)
		p = p[n:]
		if len(w.pending) == snapshotChunk {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (w *chunkWriter) flush() error {
	if len(w.pending) == 0 {
		return nil
	}
	err := w.send(w.pending)
	w.pending = nil // gRPC may hold on to what was sent
	return err
}

// chunkReader reads the bytes of a stream of messages.
type chunkReader struct {
	receive func() ([]byte, error)
	pending []byte
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.pending) == 0 {
		data, err := r.receive()
		if err != nil {
			return 0, err // io.EOF at the end of the stream
		}
		r.pending = data
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

var (
	_ io.Writer = (*chunkWriter)(nil)
	_ io.Reader = (*chunkReader)(nil)
)
