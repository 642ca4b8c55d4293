package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// RegisterServices registers AccessService and AuditService.
func (g *Guard) RegisterServices(r grpc.ServiceRegistrar) {
	ententev1.RegisterAccessServiceServer(r, &accessService{guard: g})
	ententev1.RegisterAuditServiceServer(r, &auditService{log: g.cfg.Log})
}

type accessService struct {
	ententev1.UnimplementedAccessServiceServer
	guard *Guard
}

// GrantRole creates a grant. If the grant exists, it changes nothing and returns the existing grant.
func (s *accessService) GrantRole(ctx context.Context, request *ententev1.GrantRoleRequest) (*ententev1.Grant, error) {
	m := request.GetGrant()
	grant, err := ParseGrant(m.GetRole(), m.GetSpiffeId(), m.GetTrustDomain(), m.GetPathPrefix(), m.GetDnsNames()...)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	var created *ententev1.Grant
	revision, err := s.guard.cfg.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if !grant.everywhere() {
			hosted, err := s.guard.cfg.Hosted(tx, grant.TrustDomain)
			if err != nil {
				return fmt.Errorf("look up the trust domain %s: %w", grant.TrustDomain.Name(), err)
			}
			if !hosted {
				return status.Errorf(codes.FailedPrecondition, "this cluster does not host the trust domain %s: "+
					"roles are granted in hosted domains, which entente domain list shows", grant.TrustDomain.Name())
			}
		}
		old, found, err := grants.Get(tx, grant.key())
		if err != nil {
			return err
		}
		if found {
			created = grantMessage(old.Value, uint64(old.Revision))
			return nil
		}
		row := grant.row(CallerFrom(ctx), s.guard.cfg.Now())
		created = grantMessage(row, 0)
		if err := revoked.Delete(tx, grant.key()); err != nil {
			return err
		}
		return grants.Put(tx, grant.key(), row)
	})
	if err != nil {
		return nil, plainStatus(err)
	}
	if created.GetRevision() == 0 {
		created.Revision = uint64(revision)
	}
	return created, nil
}

// ListGrants returns all grants, ordered by caller.
func (s *accessService) ListGrants(
	ctx context.Context, request *ententev1.ListGrantsRequest,
) (*ententev1.ListGrantsResponse, error) {
	read := request.GetRead()
	if _, known := ententev1.Consistency_name[int32(read.GetConsistency())]; !known {
		return nil, status.Errorf(codes.InvalidArgument, "consistency %d is unknown; use stale or linearizable",
			int32(read.GetConsistency()))
	}
	view, err := s.guard.cfg.Store.Read(ctx, raftstore.ReadOptions{
		Linearizable: read.GetConsistency() != ententev1.Consistency_CONSISTENCY_STALE,
		MinRevision:  raftstore.Revision(read.GetMinRevision()),
	})
	if err != nil {
		return nil, plainStatus(err)
	}
	response := &ententev1.ListGrantsResponse{Revision: uint64(view.Revision())}
	for row, err := range grants.All(view, "") {
		if err != nil {
			return nil, plainStatus(err)
		}
		response.Grants = append(response.Grants, grantMessage(row.Value, uint64(row.Revision)))
	}
	return response, nil
}

// RevokeRole deletes a grant. The guard ends open streams that it allowed.
func (s *accessService) RevokeRole(
	ctx context.Context, m *ententev1.RevokeRoleRequest,
) (*ententev1.RevokeRoleResponse, error) {
	grant, err := ParseGrant(m.GetRole(), m.GetSpiffeId(), m.GetTrustDomain(), m.GetPathPrefix(), m.GetDnsNames()...)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	revision, err := s.guard.cfg.Store.Update(ctx, func(tx *raftstore.Tx) error {
		_, found, err := grants.Get(tx, grant.key())
		if err != nil {
			return err
		}
		if !found {
			return status.Errorf(codes.NotFound, "%s does not have this grant (role %s, domain %s, path %s, DNS "+
				"names %s): 'entente access list' shows which there "+
				"are", grant.Caller, RoleName(grant.Role), cmp.Or(grant.TrustDomain.Name(),
				"every one"), cmp.Or(grant.PathPrefix, "any"), cmp.Or(string(grant.DNS), "none"))
		}
		if err := grants.Delete(tx, grant.key()); err != nil {
			return err
		}
		return recordRevocation(tx, grant.key(), CallerFrom(ctx), s.guard.cfg.Now())
	})
	if err != nil {
		return nil, plainStatus(err)
	}
	return &ententev1.RevokeRoleResponse{Revision: uint64(revision)}, nil
}

type auditService struct {
	ententev1.UnimplementedAuditServiceServer
	log *audit.Log
}

// TailAudit sends the latest events of this member, and follows new ones if the request has follow set.
func (s *auditService) TailAudit(
	request *ententev1.TailAuditRequest, stream grpc.ServerStreamingServer[ententev1.AuditEvent],
) error {
	if n := request.GetLines(); n > audit.MaxTailLines {
		return status.Errorf(codes.InvalidArgument,
			"lines is %d: at most %d can be shown; the file on the member has every line", n, audit.MaxTailLines)
	}
	tail := s.log.Tail(int(request.GetLines()), request.GetFollow())
	defer tail.Close()
	for {
		e, err := tail.Next(stream.Context())
		switch {
		case errors.Is(err, audit.ErrTailEnd):
			return nil
		case errors.Is(err, audit.ErrTailTooSlow):
			return status.Error(codes.ResourceExhausted, err.Error())
		case errors.Is(err, audit.ErrClosed):
			return status.Error(codes.Unavailable, err.Error())
		case err != nil:
			return plainStatus(err)
		}
		err = stream.Send(&ententev1.AuditEvent{
			Time: timestamppb.New(e.Time), Member: e.Member, Caller: e.Caller, Action: e.Action, Object: e.Object,
			Result: e.Result, Revision: e.Revision, Detail: e.Detail, Call: e.Call,
		})
		if err != nil {
			return err
		}
	}
}
