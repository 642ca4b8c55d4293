package federation

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/token"
)

// invitations are those that this cluster has made, by their id. Of the secret there is a digest alone.
var invitations = raftstore.NewTable[*statev1.Invitation]("federation_invitations")

const (
	// DefaultInvitationTTL is how long an invitation waits when nobody says otherwise.
	DefaultInvitationTTL = time.Hour
	// MaxInvitationTTL bounds that: over a weekend and the time zones, and not for ever.
	MaxInvitationTTL = 7 * 24 * time.Hour
	// invitationKept is for how long it is known what became of an invitation, so that the other side can ask again whose answer was lost.
	invitationKept = 24 * time.Hour
	// maxOpenInvitations bounds those that wait.
	maxOpenInvitations = 256
)

// InvitationConfig is what this cluster tells others of itself, and how it asks them, before there is a bundle to verify anybody by.
type InvitationConfig struct {
	// Identity is this member's identity key, and Members are all members.
	Identity *memberid.Identity
	Members  func() []InvitingMember
	// Endpoints are the URLs at which a hosted domain's bundle is served, in the order in which they should be tried, and Profile is how
	// they prove themselves.
	Endpoints func(trustDomain string) []string
	Profile   ententev1.EndpointProfile
	// Dial opens a connection under entente-join/1, and breaks it off before anything is sent if accept refuses the identity key that
	// answers. It returns the session's binding with it.
	Dial func(ctx context.Context, address string, accept func([32]byte) error) (net.Conn, []byte, error)
	// Credentials are gRPC's for such a connection, and Binding is that of the session of a call that came in over one.
	Credentials credentials.TransportCredentials
	Binding     func(ctx context.Context) ([]byte, bool)
	// Host names where such a call came from, for the bounds of one host; nil: all are of one.
	Host func(ctx context.Context) string
	// NoApproval says that agreements need no operator's approval on this side.
	NoApproval bool
}

// InvitingMember is where a member is reached, and the digest of its identity key.
type InvitingMember struct {
	Address  string
	Identity [32]byte
}

// errNoInvitations is for members that were not told how to.
var errNoInvitations = status.Error(codes.Unimplemented, "this member was not set up for invitations")

// invitationState says what became of an invitation.
func invitationState(row *statev1.Invitation, now time.Time) (ententev1.InvitationState, *timestamppb.Timestamp) {
	switch {
	case row.GetRedemption() != nil:
		return ententev1.InvitationState_INVITATION_STATE_USED, row.GetRedemption().GetTime()
	case row.GetRevokeTime() != nil:
		return ententev1.InvitationState_INVITATION_STATE_REVOKED, row.GetRevokeTime()
	case !now.Before(row.GetExpireTime().AsTime()):
		return ententev1.InvitationState_INVITATION_STATE_EXPIRED, nil
	}
	return ententev1.InvitationState_INVITATION_STATE_OPEN, nil
}

func invitationShown(id string, row *statev1.Invitation, now time.Time) *ententev1.Invitation {
	out := &ententev1.Invitation{
		Id: id, TrustDomain: row.GetTrustDomain(), ForeignTrustDomain: row.GetForeignTrustDomain(), CreateTime: row.GetCreateTime(),
		ExpireTime: row.GetExpireTime(), Creator: row.GetCreator(), Approved: row.GetApproved(), ForeignHomeTrustDomain: row.GetForeignHomeTrustDomain(),
		RevokeReason: row.GetRevokeReason(),
	}
	out.State, out.EndTime = invitationState(row, now)
	return out
}

// CreateInvitation makes an invitation and returns its token.
func (s *Service) CreateInvitation(ctx context.Context, req *ententev1.CreateInvitationRequest) (*ententev1.CreateInvitationResponse, error) {
	m := s.manager
	if m.config.Invitations.Members == nil {
		return nil, errNoInvitations
	}
	own, err := relationship.ParseTrustDomain(req.GetTrustDomain())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	foreign, err := relationship.ParseTrustDomain(req.GetForeignTrustDomain())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "foreign_%v", err)
	}
	if home := req.GetForeignHomeTrustDomain(); home != "" {
		if _, err := relationship.ParseTrustDomain(home); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "foreign_home_%v", err)
		}
	}
	ttl := DefaultInvitationTTL
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	if req.GetTtl().CheckValid() != nil && req.GetTtl() != nil || ttl < time.Second || ttl > MaxInvitationTTL {
		return nil, status.Errorf(codes.InvalidArgument, "ttl is %s; an invitation lasts from 1s to %s", ttl, MaxInvitationTTL)
	}
	now := m.now()
	t := InvitationToken{ID: token.NewID(), Secret: token.NewSecret(), TrustDomain: own, Foreign: foreign, Expires: now.Add(ttl).Truncate(time.Second).Add(time.Second)}
	for _, member := range m.config.Invitations.Members() {
		if len(t.Addresses) < relationship.MaxPeerAddresses {
			t.Addresses = append(t.Addresses, member.Address)
		}
		t.Identities = append(t.Identities, member.Identity)
	}
	text, err := t.Text()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "the invitation was not made: %v", err)
	}
	digest := t.Secret.Digest()
	row := &statev1.Invitation{
		TrustDomain: own.Name(), ForeignTrustDomain: foreign.Name(), SecretSha256: digest[:], CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(t.Expires),
		Creator: access.CallerFrom(ctx).String(), ForeignHomeTrustDomain: req.GetForeignHomeTrustDomain(),
		Approved: req.GetApprove() || m.config.Invitations.NoApproval,
	}
	for _, d := range t.Identities {
		row.Identities = append(row.Identities, d[:])
	}
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := m.agreeable(tx, own.Name(), foreign.Name()); err != nil {
			return err
		}
		if err := stillMembers(tx, row.GetIdentities()); err != nil {
			return err
		}
		if err := forgetInvitations(tx, now); err != nil {
			return err
		}
		return invitations.Put(tx, t.ID, row)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.CreateInvitationResponse{Revision: uint64(revision), Token: text, Invitation: invitationShown(t.ID, row, now)}, nil
}

// agreeable decides whether there can be an agreement between a hosted and a foreign domain.
func (m *Manager) agreeable(r raftstore.Reader, own, foreign string) error {
	hosted, err := m.config.Trust.Hosted.Hosts(r, own)
	if err != nil {
		return err
	}
	if !hosted {
		return status.Errorf(codes.FailedPrecondition, "%s is not hosted by this cluster, which can make agreements for its own domains alone; `entente domain list` shows them", own)
	}
	if hosted, err = m.config.Trust.Hosted.Hosts(r, foreign); err != nil {
		return err
	}
	if hosted {
		return status.Errorf(codes.FailedPrecondition, "%s is hosted by this cluster, and a hosted domain is never foreign; name a domain of another cluster", foreign)
	}
	row, found, err := relationship.Relationships.Get(r, foreign)
	if err == nil && found && row.Value.GetAgreement().GetEndTime() == nil {
		err = status.Errorf(codes.AlreadyExists, "there is a relationship with %s already; `entente federation show %s`, and delete it first if it is to be made anew", foreign, foreign)
	}
	return err
}

// forgetInvitations deletes what is over for long, and refuses a new one while very many are open.
func forgetInvitations(tx *raftstore.Tx, now time.Time) error {
	rows, err := invitations.List(tx, "")
	if err != nil {
		return err
	}
	open := 0
	for _, row := range rows {
		if now.After(row.Value.GetExpireTime().AsTime().Add(invitationKept)) {
			if err := invitations.Delete(tx, row.Key); err != nil {
				return err
			}
			continue
		}
		if state, _ := invitationState(row.Value, now); state == ententev1.InvitationState_INVITATION_STATE_OPEN {
			open++
		}
	}
	if open >= maxOpenInvitations {
		return status.Errorf(codes.ResourceExhausted, "%d invitations are open, the most that there can be; revoke some, or wait until they expire", open)
	}
	return nil
}

// ListInvitations shows the invitations that are open, and what became of others.
func (s *Service) ListInvitations(ctx context.Context, req *ententev1.ListInvitationsRequest) (*ententev1.ListInvitationsResponse, error) {
	view, err := s.read(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	rows, err := invitations.List(view, "")
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	out, now := &ententev1.ListInvitationsResponse{Revision: uint64(view.Revision())}, s.manager.now()
	for _, row := range rows {
		out.Invitations = append(out.Invitations, invitationShown(row.Key, row.Value, now))
	}
	return out, nil
}

// RevokeInvitation makes an open invitation void.
func (s *Service) RevokeInvitation(ctx context.Context, req *ententev1.RevokeInvitationRequest) (*ententev1.RevokeInvitationResponse, error) {
	now := s.manager.now()
	revision, err := s.manager.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := invitations.Get(tx, req.GetId())
		switch {
		case err != nil:
			return err
		case !found:
			return status.Errorf(codes.NotFound, "there is no invitation %s; `entente federation invitations` shows those that there are", relationship.Quote(req.GetId()))
		case row.Value.GetRedemption() != nil:
			return status.Errorf(codes.FailedPrecondition, "the invitation was used at %s; `entente federation delete %s` ends the agreement that came of it",
				row.Value.GetRedemption().GetTime().AsTime().Format(time.RFC3339), row.Value.GetForeignTrustDomain())
		case row.Value.GetRevokeTime() != nil:
			return nil
		}
		row.Value.RevokeTime = timestamppb.New(now)
		return invitations.Put(tx, row.Key, row.Value)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.RevokeInvitationResponse{Revision: uint64(revision)}, nil
}

// ApproveRelationship gives this side's consent to an agreement.
func (s *Service) ApproveRelationship(ctx context.Context, req *ententev1.ApproveRelationshipRequest) (*ententev1.Relationship, error) {
	now, operator := s.manager.now(), access.CallerFrom(ctx).String()
	out, err := s.decide(ctx, req.GetTrustDomain(), func(tx *raftstore.Tx) error { return relationship.Approve(tx, req.GetTrustDomain(), operator, now) })
	if err == nil {
		s.manager.consents.nudge(req.GetTrustDomain())
	}
	return out, err
}

// surviveInvitations keeps spent and revoked invitations over an operator's restore, and voids open ones: what was open then may have
// been used or revoked since.
func surviveInvitations(before, restored *raftstore.View, tx *raftstore.Tx) error {
	over := func(i *statev1.Invitation) bool { return i.GetRedemption() != nil || i.GetRevokeTime() != nil }
	was, err := invitations.List(before, "")
	if err != nil {
		return err
	}
	is, err := invitations.List(restored, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, row := range is {
		if !over(row.Value) {
			errs = append(errs, invitations.Delete(tx, row.Key))
		}
	}
	for _, row := range was {
		if over(row.Value) {
			errs = append(errs, invitations.Put(tx, row.Key, row.Value))
		}
	}
	return errors.Join(errs...)
}
