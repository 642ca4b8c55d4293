package invitation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

const (
	// The purposes of signatures by identity keys.
	purposeAccept, purposeConsent = "accept invitation", "exchange consent"
	// clockTolerance is the difference of two clusters' clocks above which operators are warned.
	clockTolerance = time.Minute

	actionInvited = "accept invitation"
	actionConsent = "consent to agreement"
)

// Service serves entente.v1.InvitationService: calls of clusters that are known only by an invitation or an agreement.
// Each call is signed with a member's identity key for the TLS session that it uses, so that neither an eavesdropper
// nor the receiver can replay it elsewhere.
type Service struct {
	ententev1.UnimplementedInvitationServiceServer
	agreements *Agreements
	calls      *rateLimit
}

// NewService returns the service of the invitations and agreements of m.
func NewService(m *Agreements) *Service {
	return &Service{agreements: m, calls: newRateLimit()}
}

// refusedInvitation is the reason why an invitation was not accepted. name is from a fixed set, for metrics.
type refusedInvitation struct {
	name string
	code codes.Code
	text string
}

func (e *refusedInvitation) Error() string { return e.text }

// GRPCStatus returns the status that the other side receives.
func (e *refusedInvitation) GRPCStatus() *status.Status { return status.New(e.code, e.text) }

func refuseInvitation(name string, code codes.Code, format string, args ...any) error {
	return &refusedInvitation{name, code, fmt.Sprintf(format, args...)}
}

// redeemable decides whether an invitation may be used. again is true if the same cluster has used it before. row is
// nil if there is no invitation with the ID in the request.
func redeemable(
	row *statev1.Invitation,
	c *ententev1.AcceptInvitationContent,
	signer [32]byte,
	now time.Time,
) (again bool, err error) {
	const remedy = "request a new one from its operator"
	if row == nil || !token.Proves(c.GetSecret(), row.GetSecretSha256()) {
		// The same error for both, so that it does not reveal which invitations exist.
		return false, refuseInvitation("unknown", codes.PermissionDenied,
			"the other cluster has no such invitation; it became void with a restore, or expired long ago: %s", remedy)
	}
	if c.GetInvitingTrustDomain() != row.GetTrustDomain() ||
		c.GetOffer().GetTrustDomain() != row.GetForeignTrustDomain() {
		return false, refuseInvitation("other_domain", codes.FailedPrecondition,
			"the invitation is from %s for %s, and was not used; only that domain can accept it",
			row.GetTrustDomain(), row.GetForeignTrustDomain())
	}
	if r := row.GetRedemption(); r != nil {
		if relationship.HasMember(r.GetIdentities(), signer) {
			return true, nil
		}
		return false, refuseInvitation("spent", codes.PermissionDenied,
			"the invitation was used at %s by another cluster, and can be used once; if that was not yours, have the "+
				"other operator end the agreement with `entente federation delete %s`, and %s",
			r.GetTime().AsTime().Format(time.RFC3339), row.GetForeignTrustDomain(), remedy)
	}
	if t := row.GetRevokeTime(); t != nil {
		return false, refuseInvitation("revoked", codes.PermissionDenied, "%s; %s",
			revokedText(t.AsTime(), row.GetRevokeReason()), remedy)
	}
	if expires := row.GetExpireTime().AsTime(); !now.Before(expires) {
		text := fmt.Sprintf(
			"the invitation expired at %s, by the clock of the cluster that created it, where it is %s now",
			expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		if theirs := c.GetTime(); theirs.IsValid() {
			if apart := now.Sub(theirs.AsTime()).Abs(); apart > clockTolerance {
				text += fmt.Sprintf("; the clocks of the two clusters are %s apart, so correct the wrong one",
					apart.Round(time.Second))
			}
		}
		return false, refuseInvitation("expired", codes.FailedPrecondition, "%s; %s", text, remedy)
	}
	return false, nil
}

// signer returns the identity key that signed a request for this session, and decodes the request into into.
func (s *Service) signer(
	ctx context.Context,
	purpose string,
	signed *ententev1.IdentitySignature,
	content []byte,
	into proto.Message,
) ([32]byte, error) {
	if s.agreements.config.Transport.Binding == nil {
		return [32]byte{}, errDisabled
	}
	host := ""
	if s.agreements.config.Transport.Host != nil {
		host = s.agreements.config.Transport.Host(ctx)
	}
	if !s.calls.allow(host, s.agreements.config.Now()) {
		return [32]byte{}, refuseInvitation("too_many", codes.ResourceExhausted,
			"too many calls by other clusters at the moment; try again in a second")
	}
	binding, ok := s.agreements.config.Transport.Binding(ctx)
	if !ok {
		return [32]byte{}, refuseInvitation("unsigned", codes.Unauthenticated, "the call did not use entente-join/1")
	}
	digest, err := memberid.VerifyIdentity(signed.GetIdentityCertificate(), purpose, signed.GetSignature(), binding,
		content)
	if err != nil {
		return [32]byte{}, refuseInvitation("unsigned", codes.Unauthenticated,
			"the request has no valid signature of a member for this session: %s", relationship.Clip(err.Error()))
	}
	if err := proto.Unmarshal(content, into); err != nil {
		return [32]byte{}, refuseInvitation("malformed", codes.InvalidArgument, "the request cannot be decoded")
	}
	return digest, nil
}

// AcceptInvitation redeems an invitation. The decision is one transaction of the whole cluster: of two concurrent calls
// only one finds the invitation open, and the other one is a repetition by the same cluster or is refused.
func (s *Service) AcceptInvitation(
	ctx context.Context,
	req *ententev1.AcceptInvitationRequest,
) (*ententev1.AcceptInvitationResponse, error) {
	answer, err := s.accept(ctx, req)
	result := audit.ResultDone
	if err != nil {
		result = "failed"
		if r, ok := errors.AsType[*refusedInvitation](err); ok {
			result = r.name
		}
		s.agreements.config.Log.Warn("invitation refused", "result", result, "error", relationship.Clip(err.Error()))
	}
	s.agreements.redemptions.WithLabelValues(result).Inc()
	return answer, raftstore.StatusError(err)
}

func (s *Service) accept(
	ctx context.Context,
	req *ententev1.AcceptInvitationRequest,
) (*ententev1.AcceptInvitationResponse, error) {
	m, c := s.agreements, &ententev1.AcceptInvitationContent{}
	signer, err := s.signer(ctx, purposeAccept, req.GetSigned(), req.GetContent(), c)
	if err != nil {
		return nil, err
	}
	if !token.IsID(c.GetInvitationId()) {
		return nil, refuseInvitation("malformed", codes.InvalidArgument, "the invitation's id is malformed")
	}
	// The invitation may have been created on another member a moment ago.
	view, err := m.config.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, err
	}
	row, _, err := invitations.Get(view, c.GetInvitationId())
	if err != nil {
		return nil, err
	}
	now := m.config.Now()
	line := audit.Event{
		Caller: fmt.Sprintf("identity key %x", signer[:8]), Action: actionInvited,
		Object: row.Value.GetForeignTrustDomain(),
		Detail: "invitation " + c.GetInvitationId(), Durable: true,
	}
	if _, err := redeemable(row.Value, c, signer, now); err != nil {
		line.Result = audit.ResultFailed
		if r, ok := errors.AsType[*refusedInvitation](err); ok {
			line.Result = r.name
		}
		_ = m.config.Audit.Record(line) // nothing was done; the recorder logs and counts a line that it cannot write
		return nil, err
	}
	agreement := &statev1.RelationshipAgreement{
		Id:                c.GetInvitationId(),
		HostedTrustDomain: row.Value.GetTrustDomain(),
		Invited:           true,
		Advertised:        row.Value.GetAdvertised(),
	}
	if row.Value.GetApproved() {
		agreement.ApproveTime, agreement.Approver = timestamppb.New(now), row.Value.GetCreator()
	}
	if c.GetApproved() {
		agreement.PeerApproveTime = timestamppb.New(now)
	}
	all, err := relationshipsOf(c.GetOffer(), agreement, relationship.AtLoopback(m.config.ownAddresses()), now)
	if err != nil {
		return nil, refuseInvitation("malformed", codes.InvalidArgument,
			"the invitation was not used, because the offer of the accepting cluster is refused: %s",
			relationship.Clip(err.Error()))
	}
	if !relationship.HasMember(agreement.GetIdentities(), signer) {
		return nil, refuseInvitation("unsigned", codes.Unauthenticated,
			"the offer does not name the member that signed the request")
	}
	roots, _, err := m.webRoots(ctx)
	if err != nil { // whose text is for operators of this cluster
		m.config.Log.Error("cannot answer an invitation that is accepted", "error", err)
		return nil, status.Error(codes.Unavailable,
			"the called member cannot read its web roots, so it does not accept the invitation; try again, another "+
				"member may be able to")
	}
	offer, err := m.offer(view, row.Value.GetTrustDomain(), row.Value.GetAdvertised(), roots)
	if err != nil {
		return nil, err
	}
	approved := false
	err = audit.Do(m.config.Audit, line, func(line *audit.Event) error {
		revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) (err error) {
			approved, err = m.redeem(tx, c, signer, all, now)
			return err
		})
		line.Revision = uint64(revision)
		if err != nil {
			line.Detail = relationship.Clip(line.Detail + ": " + err.Error())
		}
		return err
	})
	if errors.Is(err, audit.ErrUnaudited) { // whose text is for operators of this cluster
		return nil, status.Error(codes.Unavailable,
			"the called member cannot write its audit log, so it does not accept the invitation; try again, another "+
				"member may be able to")
	}
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		m.config.Intake.CompareWithHubs(ctx, r.rel.TrustDomain.Name())
	}
	m.config.Log.Info("invitation accepted", "trust_domain", c.GetOffer().GetTrustDomain(), "for",
		row.Value.GetTrustDomain(), "invitation", c.GetInvitationId(),
		"approved_here", approved, "approved_there", c.GetApproved())
	return &ententev1.AcceptInvitationResponse{Offer: offer, Approved: approved, Time: timestamppb.New(now)}, nil
}

// redeem is the transaction of an invitation: it marks the invitation as used and creates the relationships.
func (m *Agreements) redeem(
	tx *raftstore.Tx,
	c *ententev1.AcceptInvitationContent,
	signer [32]byte,
	all []agreedRelationship,
	now time.Time,
) (approved bool, err error) {
	row, _, err := invitations.Get(tx, c.GetInvitationId())
	if err != nil {
		return false, err
	}
	again, err := redeemable(row.Value, c, signer, now)
	if err != nil {
		return false, err
	}
	foreign := row.Value.GetForeignTrustDomain()
	if again {
		is, found, err := relationship.Relationships.Get(tx, foreign)
		if err != nil {
			return false, err
		}
		if a := is.Value.GetAgreement(); !found || a.GetId() != row.Key || a.GetEndTime() != nil {
			return false, refuseInvitation("spent", codes.PermissionDenied,
				"the invitation was used at %s, and its agreement has ended since; request a new one from its operator",
				row.Value.GetRedemption().GetTime().AsTime().Format(time.RFC3339))
		}
		return is.Value.GetAgreement().GetApproveTime() != nil, nil
	}
	if hosted, err := m.config.Trust.Hosted.Hosts(tx, row.Value.GetTrustDomain()); err != nil || !hosted {
		return false, errors.Join(err, refuseInvitation("not_hosted", codes.FailedPrecondition,
			"%s is no longer hosted by the inviting cluster", row.Value.GetTrustDomain()))
	}
	row.Value.Redemption = &statev1.InvitationRedemption{
		Time:       timestamppb.New(now),
		Identities: all[0].row.GetAgreement().GetIdentities(),
	}
	if err := invitations.Put(tx, row.Key, row.Value); err != nil {
		return false, err
	}
	if row.Value.GetApproved() {
		for _, r := range all {
			td := r.rel.TrustDomain
			if td.Name() == foreign || td.Name() == row.Value.GetForeignHomeTrustDomain() {
				continue // the operator who approved it named it
			}
			if err := access.PermitsVerification(context.Background(), tx, td); err != nil {
				return false, err
			}
		}
	}
	return row.Value.GetApproved(), m.agree(tx, all, row.Value.GetForeignHomeTrustDomain(), "invitation "+row.Key,
		signer, now)
}
