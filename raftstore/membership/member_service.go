package membership

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
)

// memberService serves the calls of other members.
type memberService struct {
	ententev1.UnimplementedMemberServiceServer
	caller    func(ctx context.Context) (memberID string, ok bool)
	now       func() time.Time
	directory *directory.Directory
	leader    *leader
	changes   *changes
	sections  *sections
	beats     *heartbeats
}

// authenticate returns the ID of the member that calls.
func (s memberService) authenticate(ctx context.Context) (string, error) {
	id, ok := s.caller(ctx)
	if !ok {
		return "", status.Error(
			codes.PermissionDenied,
			"only members of the cluster call this, with their identity keys",
		)
	}
	return id, nil
}

// Heartbeat implements MemberService.
func (s memberService) Heartbeat(
	ctx context.Context, req *ententev1.HeartbeatRequest,
) (*ententev1.HeartbeatResponse, error) {
	id, err := s.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	if id != req.GetId() {
		return nil, status.Errorf(codes.InvalidArgument,
			"the heartbeat names member %.80q as its sender, but member %s sent it", req.GetId(), id)
	}
	switch c := req.GetClock(); {
	case c == nil:
		return nil, status.Error(codes.InvalidArgument, "the heartbeat has no clock")
	case !c.IsValid():
		return nil, status.Errorf(codes.InvalidArgument,
			"the heartbeat's clock is not a time: it has %d seconds and %d nanoseconds", c.GetSeconds(), c.GetNanos())
	}
	now := s.now()
	distance, known, err := s.leader.receive(id, req, now)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.HeartbeatResponse{
		Clock: timestamppb.New(now), Term: req.GetTerm(), CannotCommit: s.leader.obstacle(),
		AppliedRevision: uint64(s.leader.store.View().Revision()),
	}
	if known {
		answer.ClockDistance = durationpb.New(distance)
	}
	at := s.leader.compare()
	if slices.ContainsFunc(at, func(d *ententev1.StateDigest) bool { return d.GetMemberId() == id }) {
		answer.Digests = at
	}
	return answer, nil
}

// AnnounceHealth implements MemberService.
func (s memberService) AnnounceHealth(
	ctx context.Context, req *ententev1.AnnounceHealthRequest,
) (*ententev1.AnnounceHealthResponse, error) {
	id, err := s.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	from := target{leader: id, term: req.GetTerm()}
	if to, ok := s.beats.target(); !ok || to != from {
		return nil, status.Errorf(codes.FailedPrecondition,
			"member %s does not lead in term %d, as far as this member knows", id, from.term)
	}
	s.beats.health.set(from, s.now(), req.GetCannotCommit())
	return &ententev1.AnnounceHealthResponse{}, nil
}

// GetMembership implements MemberService.
func (s memberService) GetMembership(
	ctx context.Context, _ *ententev1.GetMembershipRequest,
) (*ententev1.GetMembershipResponse, error) {
	if _, err := s.authenticate(ctx); err != nil {
		return nil, err
	}
	members, index := s.directory.Identities()
	return &ententev1.GetMembershipResponse{Revision: uint64(index), Members: members}, nil
}

// AddServer implements MemberService.
func (s memberService) AddServer(
	ctx context.Context, req *ententev1.AddServerRequest,
) (*ententev1.AddServerResponse, error) {
	if _, err := s.authenticate(ctx); err != nil {
		return nil, err
	}
	answer, err := s.changes.addServer(ctx, req.GetMember())
	return answer, raftstore.StatusError(err)
}

// RemoveServer implements MemberService.
func (s memberService) RemoveServer(
	ctx context.Context, req *ententev1.RemoveServerRequest,
) (*ententev1.RemoveServerResponse, error) {
	if _, err := s.authenticate(ctx); err != nil {
		return nil, err
	}
	revision, err := s.changes.remove(ctx, req.GetId(), req.GetCompromised())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.RemoveServerResponse{Revision: uint64(revision)}, nil
}

// Transfer implements MemberService.
func (s memberService) Transfer(
	ctx context.Context, req *ententev1.TransferRequest,
) (*ententev1.TransferResponse, error) {
	if _, err := s.authenticate(ctx); err != nil {
		return nil, err
	}
	leader, err := s.changes.transfer(ctx, req.GetId())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.TransferResponse{LeaderId: leader}, nil
}

// QueryReports implements MemberService.
func (s memberService) QueryReports(
	ctx context.Context, req *ententev1.QueryReportsRequest,
) (*ententev1.QueryReportsResponse, error) {
	if _, err := s.authenticate(ctx); err != nil {
		return nil, err
	}
	answer, err := s.sections.answer(req.GetSection(), req.GetQuery())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.QueryReportsResponse{Answer: answer}, nil
}
