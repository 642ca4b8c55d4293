package access

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access/audit/auditapi"
	"github.com/ententehq/entente/access/grant"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/repeat"
)

// RegisterServices registers AccessService and AuditService.
func (g *Guard) RegisterServices(r grpc.ServiceRegistrar) {
	ententev1.RegisterAccessServiceServer(r, &accessService{guard: g})
	ententev1.RegisterAuditServiceServer(r, auditapi.New(auditapi.Config{
		Log: g.cfg.Log, Self: g.cfg.Store.MemberID(), Members: g.cfg.Members, Conn: g.cfg.Conn,
	}))
}

type accessService struct {
	ententev1.UnimplementedAccessServiceServer
	guard *Guard
}

// GrantRole creates a grant. If the grant exists, it changes nothing and returns the existing grant.
func (s *accessService) GrantRole(ctx context.Context, request *ententev1.GrantRoleRequest) (*ententev1.Grant, error) {
	given, err := grant.Parse(request.GetGrant())
	if err != nil {
		return nil, apierror.Invalid(err)
	}
	warnings, err := s.guard.warnings(s.guard.cfg.Store.View(), given)
	if err != nil {
		return nil, plainStatus(err)
	}
	if repeat.Earlier(ctx) != nil {
		found, err := grant.Get(s.guard.cfg.Store.View(), given)
		if err != nil {
			return nil, plainStatus(err)
		}
		found.Warnings = warnings
		return found, nil
	}
	var created *ententev1.Grant
	revision, err := s.guard.cfg.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := s.guard.grantable(tx, given); err != nil {
			return err
		}
		var err error
		created, err = grant.Create(tx, given, grant.Origin{
			By: CallerFrom(ctx).String(), On: s.guard.cfg.Store.MemberID(), At: s.guard.cfg.Now(),
		})
		return err
	})
	if err != nil {
		return nil, plainStatus(err)
	}
	if created.GetRevision() == 0 {
		created.Revision = uint64(revision)
	}
	created.Warnings = warnings
	return created, nil
}

// grantable returns an error if not every member can enforce a grant, or a grant is for a trust domain in which no
// caller can have its role: the role discovery is for domains whose IDs this cluster can verify by itself, every other
// role for hosted domains.
func (g *Guard) grantable(r raftstore.Reader, given grant.Grant) error {
	if given.Services != "" {
		version, member, err := membership.LowestCommandVersion(r)
		if err != nil {
			return err
		}
		if version < raftstore.OwnersVersion {
			return status.Errorf(codes.FailedPrecondition, "member %s runs a build that would not enforce the "+
				"owners of services: upgrade it, or wait until it has announced its new version, and grant the role "+
				"again", member)
		}
	}
	if given.Everywhere() {
		return nil
	}
	possible, of := g.cfg.Hosted, "this cluster does not host the trust domain %s: roles are granted in hosted "+
		"domains, which entente domain list shows"
	if given.Role == grant.Discovery && g.cfg.Direct != nil {
		possible, of = g.cfg.Direct, "this cluster neither hosts the trust domain %s nor has a relationship with it: "+
			"entente domain list and entente federation list show those in which the role discovery can be granted"
	}
	ok, err := possible(r, given.TrustDomain)
	if err != nil {
		return fmt.Errorf("look up the trust domain %s: %w", given.TrustDomain.Name(), err)
	}
	if !ok {
		return status.Errorf(codes.FailedPrecondition, of, given.TrustDomain.Name())
	}
	return nil
}

// GetGrant returns one grant.
func (s *accessService) GetGrant(ctx context.Context, request *ententev1.GetGrantRequest) (*ententev1.Grant, error) {
	wanted, err := grant.Parse(request)
	if err != nil {
		return nil, apierror.Invalid(err)
	}
	view, err := s.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	found, err := grant.Get(view, wanted)
	return found, plainStatus(err)
}

// read returns the state that a read is answered from.
func (s *accessService) read(ctx context.Context, read *ententev1.ReadOptions) (*raftstore.View, error) {
	if _, known := ententev1.Consistency_name[int32(read.GetConsistency())]; !known {
		return nil, apierror.Invalid(apierror.InField("read.consistency", fmt.Errorf(
			"consistency %d is unknown; use stale or linearizable", int32(read.GetConsistency()))))
	}
	view, err := s.guard.cfg.Store.Read(ctx, raftstore.ReadOptions{
		Linearizable: read.GetConsistency() != ententev1.Consistency_CONSISTENCY_STALE,
		MinRevision:  raftstore.Revision(read.GetMinRevision()),
	})
	return view, plainStatus(err)
}

// ListGrants returns all grants, ordered by caller.
func (s *accessService) ListGrants(
	ctx context.Context, request *ententev1.ListGrantsRequest,
) (*ententev1.ListGrantsResponse, error) {
	view, err := s.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	response := &ententev1.ListGrantsResponse{Revision: uint64(view.Revision())}
	if response.Grants, err = grant.List(view); err != nil {
		return nil, plainStatus(err)
	}
	if response.ReservedServices, err = grant.Reserved(view); err != nil {
		return nil, plainStatus(err)
	}
	return response, nil
}

// RevokeRole deletes a grant. The guard ends open streams that it allowed.
func (s *accessService) RevokeRole(
	ctx context.Context, m *ententev1.RevokeRoleRequest,
) (*ententev1.RevokeRoleResponse, error) {
	given, err := grant.Parse(m)
	if err != nil {
		return nil, apierror.Invalid(err)
	}
	store := s.guard.cfg.Store
	effects, err := s.guard.cfg.dependents(store.View(), given)
	if err != nil {
		return nil, plainStatus(err)
	}
	var warnings []string
	revoke := func(tx *raftstore.Tx) (err error) {
		if err := grant.Revoke(tx, given, m.GetEtag(), CallerFrom(ctx).String(), s.guard.cfg.Now()); err != nil {
			return err
		}
		warnings, err = lastOwned(tx, given)
		return err
	}
	if m.GetDryRun() {
		if err := raftstore.Try(ctx, store, revoke); err != nil {
			return nil, plainStatus(err)
		}
		return &ententev1.RevokeRoleResponse{
			Revision: uint64(store.View().Revision()), Effects: append(revokeEffects(given, warnings), effects...),
		}, nil
	}
	revision, err := store.Update(ctx, revoke)
	if err != nil {
		return nil, plainStatus(err)
	}
	for _, e := range effects {
		warnings = append(warnings, e.GetSubject()+": "+e.GetDetail())
	}
	return &ententev1.RevokeRoleResponse{Revision: uint64(revision), Warnings: warnings}, nil
}

// ReleaseService makes the reserved name of a service open again.
func (s *accessService) ReleaseService(
	ctx context.Context, m *ententev1.ReleaseServiceRequest,
) (*ententev1.ReleaseServiceResponse, error) {
	store := s.guard.cfg.Store
	release := func(tx *raftstore.Tx) error { return grant.Release(tx, m.GetService()) }
	if m.GetDryRun() {
		if err := raftstore.Try(ctx, store, release); err != nil {
			return nil, plainStatus(err)
		}
		return &ententev1.ReleaseServiceResponse{
			Revision: uint64(store.View().Revision()), Effects: releaseEffects(m.GetService()),
		}, nil
	}
	revision, err := store.Update(ctx, release)
	if err != nil {
		return nil, plainStatus(err)
	}
	return &ententev1.ReleaseServiceResponse{Revision: uint64(revision)}, nil
}
