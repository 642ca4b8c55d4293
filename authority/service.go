package authority

import (
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/anchor"
	"github.com/ententehq/entente/authority/internal/request"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// authorityService serves entente.v1.AuthorityService.
type authorityService struct {
	ententev1.UnimplementedAuthorityServiceServer
	operator *operator
}

// ListAuthorities lists the authorities of one hosted domain or of all, of every member, with what each waits for.
func (s *authorityService) ListAuthorities(
	ctx context.Context, r *ententev1.ListAuthoritiesRequest,
) (*ententev1.ListAuthoritiesResponse, error) {
	config := s.operator.config
	view, err := request.View(ctx, config.Store, r.GetRead())
	if err != nil {
		return nil, err
	}
	domains, err := request.Domains(view, r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	response := &ententev1.ListAuthoritiesResponse{Revision: uint64(view.Revision())}
	for _, domain := range domains {
		situation, rows, err := s.operator.executor.situation(view, domain, config.Now())
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		situation.Peers = s.operator.peers.of(ctx, domain.GetTrustDomain(), situation, true)
		for _, row := range rows {
			message, err := authorityMessage(situation, row)
			if err != nil {
				return nil, raftstore.StatusError(err)
			}
			response.Authorities = append(response.Authorities, message)
		}
	}
	return response, nil
}

// RotateAuthorities requests a rotation, which every member carries out by itself. The duration in the response is that
// of the slowest domain.
func (s *authorityService) RotateAuthorities(
	ctx context.Context, r *ententev1.RotateAuthoritiesRequest,
) (*ententev1.RotateAuthoritiesResponse, error) {
	revision, expected, err := s.request(ctx, r.GetTrustDomain(), func(row *statev1.Rotation, now time.Time) {
		row.Rotation++
		row.RequestTime = timestamppb.New(now)
		if r.GetAnchors() {
			row.AnchorRotation = row.GetRotation()
		}
	}, plan.RotationTakes)
	if err != nil {
		return nil, err
	}
	return &ententev1.RotateAuthoritiesResponse{
		Revision:         uint64(revision),
		ExpectedDuration: durationpb.New(expected),
	}, nil
}

// PrepareAuthorities requests authorities in reserve, which every member prepares by itself.
func (s *authorityService) PrepareAuthorities(
	ctx context.Context, r *ententev1.PrepareAuthoritiesRequest,
) (*ententev1.PrepareAuthoritiesResponse, error) {
	revision, expected, err := s.request(ctx, r.GetTrustDomain(),
		func(row *statev1.Rotation, _ time.Time) { row.Reserve++ },
		func(situation plan.Situation) time.Duration { return situation.Settings.Dissemination(situation.Now) })
	if err != nil {
		return nil, err
	}
	return &ententev1.PrepareAuthoritiesResponse{
		Revision:         uint64(revision),
		ExpectedDuration: durationpb.New(expected),
	}, nil
}

// request changes the requests for rotations of the named domain, or of all, and returns the duration of the slowest.
func (s *authorityService) request(
	ctx context.Context, name string, change func(*statev1.Rotation, time.Time),
	duration func(plan.Situation) time.Duration,
) (revision raftstore.Revision, longest time.Duration, err error) {
	revision, err = s.operator.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		longest = 0
		domains, err := request.Domains(tx, name)
		if err != nil {
			return err
		}
		for _, domain := range domains {
			td := domain.GetTrustDomain()
			situation, _, err := s.operator.executor.situation(tx, domain, s.operator.config.Now())
			if err != nil {
				return err
			}
			stored, _, err := table.Rotations.Get(tx, td)
			if err != nil {
				return err
			}
			row := stored.Value
			if row == nil {
				row = &statev1.Rotation{TrustDomain: td}
			}
			change(row, situation.Now)
			if err := table.Rotations.Put(tx, td, row); err != nil {
				return err
			}
			longest = max(longest, duration(situation))
		}
		return nil
	})
	if err != nil {
		return 0, 0, raftstore.StatusError(err)
	}
	return revision, longest, nil
}

// ActivateAuthority activates a prepared authority at once.
func (s *authorityService) ActivateAuthority(
	ctx context.Context, r *ententev1.ActivateAuthorityRequest,
) (*ententev1.ActivateAuthorityResponse, error) {
	out, err := s.operator.act(ctx, r.GetTrustDomain(),
		func(_ *raftstore.Tx, _ *statev1.Domain, situation plan.Situation) ([]plan.Action, error) {
			return plan.ActivateAuthority(situation.Authorities, r.GetId(), situation.Now)
		})
	if err != nil {
		return nil, err
	}
	response := &ententev1.ActivateAuthorityResponse{Revision: uint64(out.revision)}
	if response.Authorities, err = out.messages(); err != nil {
		return nil, err
	}
	out.before.Peers = s.operator.peers.of(ctx, r.GetTrustDomain(), out.before, true)
	if response.Warnings, err = activateWarnings(out, r.GetId(), s.operator.alive()); err != nil {
		return nil, raftstore.StatusError(err)
	}
	return response, nil
}

// TaintAuthority taints an authority.
func (s *authorityService) TaintAuthority(
	ctx context.Context, r *ententev1.TaintAuthorityRequest,
) (*ententev1.TaintAuthorityResponse, error) {
	decide := func(_ *raftstore.Tx, _ *statev1.Domain, situation plan.Situation) ([]plan.Action, error) {
		return plan.TaintAuthority(situation.Authorities, r.GetId())
	}
	if r.GetDryRun() {
		out, err := s.operator.try(ctx, r.GetTrustDomain(), decide)
		if err != nil {
			return nil, err
		}
		return &ententev1.TaintAuthorityResponse{
			Revision: uint64(out.revision), Effects: taintEffects(out, r.GetId(), s.operator.alive()),
		}, nil
	}
	out, err := s.operator.act(ctx, r.GetTrustDomain(), decide)
	if err != nil {
		return nil, err
	}
	response := &ententev1.TaintAuthorityResponse{Revision: uint64(out.revision)}
	if response.Authorities, err = out.messages(); err != nil {
		return nil, err
	}
	response.Warnings = taintWarnings(out, r.GetId(), s.operator.alive())
	return response, nil
}

// RevokeAuthority revokes an authority, or an anchor with all authorities below it.
func (s *authorityService) RevokeAuthority(
	ctx context.Context, r *ententev1.RevokeAuthorityRequest,
) (*ententev1.RevokeAuthorityResponse, error) {
	var decide decision
	switch what := r.GetWhat().(type) {
	case *ententev1.RevokeAuthorityRequest_Id:
		decide = func(_ *raftstore.Tx, _ *statev1.Domain, situation plan.Situation) ([]plan.Action, error) {
			return plan.RevokeAuthority(situation.Authorities, what.Id)
		}
	case *ententev1.RevokeAuthorityRequest_Anchor:
		decide = func(tx *raftstore.Tx, domain *statev1.Domain, situation plan.Situation) ([]plan.Action, error) {
			return s.operator.revokeAnchor(tx, domain, situation, strings.ToLower(what.Anchor), r.GetForce())
		}
	default:
		return nil, status.Error(codes.InvalidArgument, "neither id nor anchor is given; name one")
	}
	if r.GetDryRun() {
		out, err := s.operator.try(ctx, r.GetTrustDomain(), decide)
		if err != nil {
			return nil, err
		}
		return &ententev1.RevokeAuthorityResponse{
			Revision: uint64(out.revision), Effects: revokeEffects(out, s.operator.alive()),
		}, nil
	}
	out, err := s.operator.act(ctx, r.GetTrustDomain(), decide)
	if err != nil {
		return nil, err
	}
	upstream := s.operator.revoker.revokeNow(ctx, out.rows, out.ids(plan.Revoke))
	response := &ententev1.RevokeAuthorityResponse{Revision: uint64(out.revision)}
	if response.Authorities, err = out.messages(); err != nil {
		return nil, err
	}
	alive := s.operator.alive()
	response.Warnings = slices.Concat(revokeWarnings(out, alive), upstream, silentWarnings(out, plan.Revoke, alive))
	return response, nil
}

// ListAnchors lists the anchors of one hosted domain or of all: those in the bundle, and those that wait for approval.
func (s *authorityService) ListAnchors(
	ctx context.Context, r *ententev1.ListAnchorsRequest,
) (*ententev1.ListAnchorsResponse, error) {
	view, err := request.View(ctx, s.operator.config.Store, r.GetRead())
	if err != nil {
		return nil, err
	}
	domains, err := request.Domains(view, r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	response := &ententev1.ListAnchorsResponse{Revision: uint64(view.Revision())}
	for _, domain := range domains {
		anchors, err := anchor.List(view, domain, s.operator.config.Now())
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		response.Anchors = append(response.Anchors, anchors...)
	}
	return response, nil
}

// ApproveAnchor publishes an anchor that waits for approval.
func (s *authorityService) ApproveAnchor(
	ctx context.Context, r *ententev1.ApproveAnchorRequest,
) (*ententev1.ApproveAnchorResponse, error) {
	wanted := strings.ToLower(r.GetAnchor())
	if wanted == "" {
		return nil, status.Error(codes.InvalidArgument,
			"anchor is empty; name one by its key ID or its SHA-256, as 'entente authority anchors' shows them")
	}
	var approved *x509.Certificate
	out, err := s.operator.act(ctx, r.GetTrustDomain(),
		func(tx *raftstore.Tx, domain *statev1.Domain, situation plan.Situation) (_ []plan.Action, err error) {
			approved, err = s.operator.anchors.Approve(tx, domain, wanted, situation.Now)
			return nil, err
		})
	if err != nil {
		return nil, err
	}
	config := s.operator.config
	config.Logger.Info("approve anchor", "trust_domain", out.domain.GetTrustDomain(), "id", svid.AnchorID(approved),
		"revision", out.revision)
	messages, err := anchor.List(config.Store.View(), out.domain, config.Now())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	response := &ententev1.ApproveAnchorResponse{Revision: uint64(out.revision)}
	for _, a := range messages {
		if a.GetKeyId() == svid.AnchorID(approved) {
			response.Anchor = a
		}
	}
	return response, nil
}

// authorityMessage returns an authority as the API shows it.
func authorityMessage(s plan.Situation, row *statev1.Authority) (*ententev1.Authority, error) {
	message := &ententev1.Authority{
		Id: row.GetId(), TrustDomain: row.GetTrustDomain(), Member: row.GetMember(),
		Kind: ententev1.AuthorityKind(row.GetKind()), State: ententev1.AuthorityState(row.GetState()),
		KeyId: row.GetId(), NotBefore: row.GetNotBefore(), NotAfter: row.GetNotAfter(),
		PrepareTime: row.GetPrepareTime(), ActivateTime: row.GetActivateTime(), RetireTime: row.GetRetireTime(),
		TaintTime: row.GetTaintTime(), RevokeTime: row.GetRevokeTime(),
	}
	if plan.Kind(row.GetKind()) == plan.X509 {
		anchor, err := table.AnchorOf(row)
		if err != nil {
			return nil, err
		}
		message.KeyId = svid.AnchorID(anchor)
	}
	a := table.AuthorityOf(row)
	at, sentence := plan.Wait(s, a)
	if !at.IsZero() {
		message.NextTime = timestamppb.New(at)
	}
	message.WaitsFor = sentence
	if a.State != plan.Prepared {
		return message, nil
	}
	for _, p := range s.Unacknowledged(a) {
		message.Unacknowledged = append(message.Unacknowledged, &ententev1.UnacknowledgedPeer{
			HomeTrustDomain: p.Peer, Sequence: p.Sequence, Refusal: p.Refusal, Connected: p.Connected,
			For: durationpb.New(s.Now.Sub(a.PublishedAt)),
		})
	}
	return message, nil
}

// timeText returns a time as sentences show it.
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
