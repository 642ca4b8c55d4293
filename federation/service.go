package federation

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
)

// Service serves entente.v1.FederationService. Calls are authorized and audited before they reach it.
type Service struct {
	ententev1.UnimplementedFederationServiceServer
	manager *Manager
}

// NewService returns the service of a manager.
func NewService(m *Manager) *Service { return &Service{manager: m} }

// CreateRelationship creates a relationship with a foreign domain.
func (s *Service) CreateRelationship(
	ctx context.Context,
	req *ententev1.CreateRelationshipRequest,
) (*ententev1.Relationship, error) {
	want, err := relationship.FromRequest(req.GetRelationship())
	if err != nil {
		return nil, err
	}
	rel, err := relationship.Parse(want)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if repeat.Earlier(ctx) != nil {
		return s.show(ctx, s.manager.config.Store.View(), want.GetTrustDomain())
	}
	bootstrap, err := relationship.ParseBootstrap(rel, req.GetBootstrapBundle())
	if err != nil {
		return nil, err
	}
	now, operator := s.manager.now(), access.CallerFrom(ctx).String()
	_, err = s.manager.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := access.PermitsVerification(ctx, tx, rel.TrustDomain); err != nil {
			return err
		}
		return s.manager.create(tx, want, bootstrap, operator, now)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	s.manager.intake.CompareWithHubs(ctx, want.GetTrustDomain())
	return s.show(ctx, s.manager.config.Store.View(), want.GetTrustDomain())
}

// UpdateRelationship changes the fields that the update mask names, and can replace the stored bundle.
func (s *Service) UpdateRelationship(
	ctx context.Context,
	req *ententev1.UpdateRelationshipRequest,
) (*ententev1.Relationship, error) {
	c := change{
		req.GetRelationship(),
		req.GetUpdateMask().GetPaths(),
		req.GetBootstrapBundle(),
		req.GetResetSequence(),
		req.GetEtag(),
		access.CallerFrom(ctx).String(),
	}
	name := c.wanted.GetTrustDomain()
	td, err := relationship.ParseTrustDomain(name)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := relationship.CheckMask(c.paths); err != nil {
		return nil, err
	}
	switch {
	case len(c.paths) == 0 && len(c.bootstrap) == 0 && !c.reset:
		return nil, status.Error(
			codes.InvalidArgument,
			"nothing to update: name fields in update_mask, or give a bootstrap_bundle",
		)
	case c.reset && len(c.bootstrap) == 0:
		return nil, status.Errorf(
			codes.InvalidArgument,
			"reset_sequence needs a bootstrap_bundle: get the bundle of %s from the peer's operator and give it with "+
				"--bootstrap FILE",
			name,
		)
	}
	decide := func() (*ententev1.Relationship, error) {
		now := s.manager.now()
		return s.decide(ctx, name, func(tx *raftstore.Tx) error {
			if err := access.PermitsVerification(ctx, tx, td); err != nil {
				return err
			}
			return s.manager.update(tx, c, now)
		})
	}
	if !c.reset {
		return decide()
	}
	return s.audited(ctx, name, decide)
}

// audited audits an operator's decision to reset a sequence, which suspends the protection against rollback once.
func (s *Service) audited(
	ctx context.Context,
	name string,
	decide func() (*ententev1.Relationship, error),
) (out *ententev1.Relationship, err error) {
	err = audit.Do(s.manager.config.Audit, audit.Event{
		Caller: access.CallerFrom(ctx).String(), Action: actionReset, Object: name, Durable: true,
		Detail: "the stored bundle is replaced by the operator's, whatever its sequence",
	}, func(line *audit.Event) error {
		if out, err = decide(); err != nil {
			line.Detail = relationship.Clip(err.Error())
			return err
		}
		line.Revision = out.GetRevision()
		return nil
	})
	return out, err
}

// SuspendRelationship suspends a relationship: its bundle is neither fetched nor relied on, and kept.
func (s *Service) SuspendRelationship(
	ctx context.Context,
	req *ententev1.SuspendRelationshipRequest,
) (*ententev1.Relationship, error) {
	return s.decide(
		ctx,
		req.GetTrustDomain(),
		func(tx *raftstore.Tx) error {
			return relationship.Suspend(s.manager.config.Trust.Sources, tx, req.GetTrustDomain(),
				access.CallerFrom(ctx).String(), s.manager.config.Now())
		},
	)
}

// ResumeRelationship resumes a relationship. Its bundle has the validity of its last refresh until the next one, which
// runs at once.
func (s *Service) ResumeRelationship(
	ctx context.Context,
	req *ententev1.ResumeRelationshipRequest,
) (*ententev1.Relationship, error) {
	return s.decide(
		ctx,
		req.GetTrustDomain(),
		func(tx *raftstore.Tx) error {
			return relationship.Resume(s.manager.config.Trust.Sources, tx, req.GetTrustDomain())
		},
	)
}

// DeleteRelationship deletes a relationship with its bundle.
func (s *Service) DeleteRelationship(
	ctx context.Context,
	req *ententev1.DeleteRelationshipRequest,
) (*ententev1.DeleteRelationshipResponse, error) {
	if req.GetDryRun() {
		return s.deletionEffects(ctx, req)
	}
	var ended *statev1.Relationship
	revision, err := s.manager.config.Store.Update(ctx, func(tx *raftstore.Tx) (err error) {
		if ended, err = relationship.Get(s.manager.config.Trust.Sources, tx, req.GetTrustDomain()); err != nil {
			return err
		}
		if err := relationship.CheckEtag(req.GetEtag(), ended); err != nil {
			return err
		}
		return relationship.DeleteWithLinkedHome(s.manager.config.Trust.Sources, tx, ended, req.GetToHub())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	s.manager.agreements.Terminated(ended)
	return &ententev1.DeleteRelationshipResponse{Revision: uint64(revision)}, nil
}

// RefreshRelationship fetches now, on this member, and returns the result in last_result and last_error.
func (s *Service) RefreshRelationship(
	ctx context.Context,
	req *ententev1.RefreshRelationshipRequest,
) (*ententev1.Relationship, error) {
	name := req.GetTrustDomain()
	view, err := s.manager.config.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	row, err := relationship.Get(s.manager.config.Trust.Sources, view, name)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !relationship.Consented(row.GetAgreement()) {
		return nil, status.Errorf(
			codes.FailedPrecondition,
			"the agreement with %s lacks a consent, without which nothing is fetched; `entente federation show %s` "+
				"shows whose",
			name,
			name,
		)
	}
	if row.GetSuspended() {
		return nil, status.Errorf(
			codes.FailedPrecondition,
			"the relationship with %s is suspended, and a suspended one is not fetched; resume it first with `entente "+
				"federation resume %s`",
			name,
			name,
		)
	}
	if row.GetStatic() {
		return nil, status.Errorf(
			codes.FailedPrecondition,
			"the relationship with %s is static: nothing is fetched; replace its bundle with `entente federation "+
				"update %s --bootstrap FILE`",
			name,
			name,
		)
	}
	out, _ := s.manager.poller.RefreshRequested(ctx, name)
	if ctx.Err() != nil {
		return nil, raftstore.StatusError(ctx.Err())
	}
	shown, err := s.show(ctx, s.manager.config.Store.View(), name)
	if err != nil {
		return nil, err
	}
	shown.LastResult, shown.LastError = out.Result, ""
	if out.Err != nil {
		shown.LastError = relationship.Clip(out.Err.Error())
	}
	return shown, nil
}

// GetRelationship returns one relationship.
func (s *Service) GetRelationship(
	ctx context.Context,
	req *ententev1.GetRelationshipRequest,
) (*ententev1.Relationship, error) {
	view, err := s.read(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	return s.show(ctx, view, req.GetTrustDomain())
}

// ListRelationships lists relationships by trust domain, as many as fit into one message.
func (s *Service) ListRelationships(
	ctx context.Context,
	req *ententev1.ListRelationshipsRequest,
) (*ententev1.ListRelationshipsResponse, error) {
	view, err := s.read(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	if req.GetPageSize() < 0 {
		return nil, status.Error(
			codes.InvalidArgument,
			"page_size is negative; leave it out for as many as fit into one message",
		)
	}
	return s.manager.display.page(ctx, view, req.GetPageToken(), int(req.GetPageSize()))
}

// ApproveRelationship gives this side's consent to an agreement.
func (s *Service) ApproveRelationship(
	ctx context.Context,
	req *ententev1.ApproveRelationshipRequest,
) (*ententev1.Relationship, error) {
	now, operator := s.manager.now(), access.CallerFrom(ctx).String()
	out, err := s.decide(ctx, req.GetTrustDomain(), func(tx *raftstore.Tx) error {
		if err := s.permitsAgreement(ctx, tx, req.GetTrustDomain()); err != nil {
			return err
		}
		return relationship.Approve(s.manager.config.Trust.Sources, tx, req.GetTrustDomain(), operator, now)
	})
	if err == nil {
		s.manager.agreements.Trigger(req.GetTrustDomain())
	}
	return out, err
}

// permitsAgreement returns nil if the caller may approve the agreement with a trust domain, which can include the home
// domain of the other cluster.
func (s *Service) permitsAgreement(ctx context.Context, tx *raftstore.Tx, name string) error {
	main, err := relationship.Get(s.manager.config.Trust.Sources, tx, name)
	if err != nil {
		return err
	}
	if main.GetAgreement() == nil {
		return nil
	}
	for row, err := range relationship.Relationships.All(tx, "") {
		if err != nil {
			return err
		}
		if row.Value.GetAgreement().GetId() != main.GetAgreement().GetId() {
			continue
		}
		td, err := relationship.ParseTrustDomain(row.Key)
		if err != nil {
			return err
		}
		if err := access.PermitsVerification(ctx, tx, td); err != nil {
			return err
		}
	}
	return nil
}

// CreateInvitation implements the API.
func (s *Service) CreateInvitation(
	ctx context.Context,
	req *ententev1.CreateInvitationRequest,
) (*ententev1.CreateInvitationResponse, error) {
	return s.manager.agreements.CreateInvitation(ctx, req)
}

// GetInvitation implements the API.
func (s *Service) GetInvitation(
	ctx context.Context,
	req *ententev1.GetInvitationRequest,
) (*ententev1.Invitation, error) {
	return s.manager.agreements.GetInvitation(ctx, req)
}

// ListInvitations implements the API.
func (s *Service) ListInvitations(
	ctx context.Context,
	req *ententev1.ListInvitationsRequest,
) (*ententev1.ListInvitationsResponse, error) {
	return s.manager.agreements.ListInvitations(ctx, req)
}

// RevokeInvitation implements the API.
func (s *Service) RevokeInvitation(
	ctx context.Context,
	req *ententev1.RevokeInvitationRequest,
) (*ententev1.RevokeInvitationResponse, error) {
	return s.manager.agreements.RevokeInvitation(ctx, req)
}

// RedeemInvitation implements the API.
func (s *Service) RedeemInvitation(
	ctx context.Context,
	req *ententev1.RedeemInvitationRequest,
) (*ententev1.RedeemInvitationResponse, error) {
	return s.manager.agreements.RedeemInvitation(ctx, req)
}

// decide runs an operator's transaction and returns the relationship after it.
func (s *Service) decide(
	ctx context.Context,
	name string,
	fn func(tx *raftstore.Tx) error,
) (*ententev1.Relationship, error) {
	if _, err := s.manager.config.Store.Update(ctx, fn); err != nil {
		return nil, raftstore.StatusError(err)
	}
	return s.show(ctx, s.manager.config.Store.View(), name)
}

func (s *Service) read(ctx context.Context, o *ententev1.ReadOptions) (*raftstore.View, error) {
	view, err := s.manager.config.Store.Read(ctx, raftstore.ReadOptions{
		Linearizable: o.GetConsistency() != ententev1.Consistency_CONSISTENCY_STALE,
		MinRevision:  raftstore.Revision(o.GetMinRevision()),
	})
	return view, raftstore.StatusError(err)
}

func (s *Service) show(ctx context.Context, view *raftstore.View, name string) (*ententev1.Relationship, error) {
	return s.manager.display.show(ctx, view, name)
}
