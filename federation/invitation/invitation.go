package invitation

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
)

// invitations are the invitations of this cluster, by ID. A row has only a digest of the secret.
var invitations = raftstore.NewTable[*statev1.Invitation]("federation_invitations")

const (
	// DefaultInvitationTTL is how long an invitation is open if the request has no TTL.
	DefaultInvitationTTL = time.Hour
	// MaxInvitationTTL is the longest TTL: enough for a weekend and time zones.
	MaxInvitationTTL = 7 * 24 * time.Hour
	// keptAfter is how long a row is kept after its expiry, for a cluster that lost the response and repeats its call.
	keptAfter = 24 * time.Hour
	// maxOpenInvitations limits the invitations that are open at once.
	maxOpenInvitations = 256
)

// invitationState returns the state of an invitation, and when it was used or revoked.
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
		Id: id, TrustDomain: row.GetTrustDomain(), ForeignTrustDomain: row.GetForeignTrustDomain(),
		CreateTime: row.GetCreateTime(),
		ExpireTime: row.GetExpireTime(), Creator: row.GetCreator(), Approved: row.GetApproved(),
		ForeignHomeTrustDomain: row.GetForeignHomeTrustDomain(), Advertised: row.GetAdvertised(),
		RevokeReason: row.GetRevokeReason(),
	}
	out.State, out.EndTime = invitationState(row, now)
	out.PublicPart, _ = token.Public(token.InvitationPrefix, contentOf(id, row)) // a row encodes
	return out
}

// contentOf returns the content of the token of an invitation, without its secret.
func contentOf(id string, row *statev1.Invitation) *statev1.InvitationContent {
	return &statev1.InvitationContent{
		Id: id, TrustDomain: row.GetTrustDomain(), ForeignTrustDomain: row.GetForeignTrustDomain(),
		Addresses: row.GetAddresses(), Identities: row.GetIdentities(), ExpireSeconds: row.GetExpireTime().GetSeconds(),
	}
}

// CreateInvitation creates an invitation and returns its token.
func (m *Agreements) CreateInvitation(
	ctx context.Context,
	req *ententev1.CreateInvitationRequest,
) (*ententev1.CreateInvitationResponse, error) {
	if m.config.Transport.Members == nil {
		return nil, errDisabled
	}
	if earlier := repeat.Earlier(ctx); earlier != nil {
		return m.createdEarlier(ctx, earlier)
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
		return nil, status.Errorf(codes.InvalidArgument, "ttl is %s; an invitation lasts from 1s to %s", ttl,
			MaxInvitationTTL)
	}
	advertised, err := m.config.parseAdvertised(req.GetAdvertise())
	if err != nil {
		return nil, err
	}
	secret, err := token.Choose(req.GetSecretSha256())
	if err != nil {
		return nil, err
	}
	roots, doubts, err := m.webRoots(ctx)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	now, told := m.config.Now(), m.config.announcement(own.Name(), advertised)
	t := Token{
		ID:          token.NewID(),
		TrustDomain: own,
		Foreign:     foreign,
		Addresses:   told.Addresses,
		Expires:     now.Add(ttl).Truncate(time.Second).Add(time.Second),
	}
	for _, member := range m.config.Transport.Members() {
		t.Identities = append(t.Identities, member.Identity)
	}
	row := &statev1.Invitation{
		TrustDomain: own.Name(), ForeignTrustDomain: foreign.Name(), SecretSha256: secret.Digest(),
		Addresses:  told.Addresses,
		CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(t.Expires),
		Creator: access.CallerFrom(ctx).String(), ForeignHomeTrustDomain: req.GetForeignHomeTrustDomain(),
		Approved: req.GetApprove() || m.config.Transport.NoApproval, Advertised: advertised,
	}
	for _, d := range t.Identities {
		row.Identities = append(row.Identities, d[:])
	}
	text, err := secret.Text(token.InvitationPrefix, contentOf(t.ID, row))
	if err := checkLength(text, err); err != nil {
		return nil, status.Errorf(codes.Internal, "create the invitation: %v", err)
	}
	repeat.Generated(ctx, t.ID)
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := m.agreeable(tx, own.Name(), foreign.Name()); err != nil {
			return err
		}
		for _, name := range []string{foreign.Name(), req.GetForeignHomeTrustDomain()} {
			if td, err := relationship.ParseTrustDomain(name); err == nil {
				if err := access.PermitsVerification(ctx, tx, td); err != nil {
					return err
				}
			}
		}
		if err := stillMembers(tx, row.GetIdentities()); err != nil {
			return err
		}
		if err := deleteOldInvitations(tx, now); err != nil {
			return err
		}
		return invitations.Put(tx, t.ID, row)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.CreateInvitationResponse{
		Revision:   uint64(revision),
		Token:      text,
		Invitation: invitationShown(t.ID, row, now),
		Addresses:  told.Addresses, Urls: told.Urls, Warnings: doubts,
		WebRootsSha256: hex.EncodeToString(endpoint.RootsDigest(roots)),
	}, nil
}

// createdEarlier returns the invitation that an earlier call with the same request id has created, without its secret.
func (m *Agreements) createdEarlier(
	ctx context.Context, call *repeat.Made,
) (*ententev1.CreateInvitationResponse, error) {
	row, found, err := invitations.Get(m.config.Store.View(), call.Name)
	if err != nil || !found {
		return nil, cmp.Or(raftstore.StatusError(err), missing(call.Name))
	}
	roots, doubts, err := m.webRoots(ctx)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	told := m.config.announcement(row.Value.GetTrustDomain(), row.Value.GetAdvertised())
	return &ententev1.CreateInvitationResponse{
		Revision:   uint64(call.Revision),
		Invitation: invitationShown(row.Key, row.Value, m.config.Now()),
		Addresses:  told.Addresses, Urls: told.Urls, Warnings: doubts,
		WebRootsSha256: hex.EncodeToString(endpoint.RootsDigest(roots)),
	}, nil
}

// agreeable returns an error if an agreement between a hosted and a foreign domain is not possible.
func (m *Agreements) agreeable(r raftstore.Reader, own, foreign string) error {
	hosted, err := m.config.Trust.Hosted.Hosts(r, own)
	if err != nil {
		return err
	}
	if !hosted {
		return status.Errorf(codes.FailedPrecondition,
			"%s is not hosted by this cluster, and an agreement is always for a hosted domain; `entente domain list` "+
				"shows them",
			own)
	}
	if hosted, err = m.config.Trust.Hosted.Hosts(r, foreign); err != nil {
		return err
	}
	if hosted {
		return status.Errorf(codes.FailedPrecondition,
			"%s is hosted by this cluster, and a hosted domain is never foreign; name a domain of another cluster",
			foreign)
	}
	row, found, err := relationship.Relationships.Get(r, foreign)
	if err == nil && found && row.Value.GetAgreement().GetEndTime() == nil {
		err = status.Errorf(codes.AlreadyExists,
			"there is a relationship with %s already; `entente federation show %s`, and delete it first to replace it",
			foreign, foreign)
	}
	return err
}

// deleteOldInvitations deletes invitations that expired more than keptAfter ago, and returns an error if too many are
// open.
func deleteOldInvitations(tx *raftstore.Tx, now time.Time) error {
	rows, err := invitations.List(tx, "")
	if err != nil {
		return err
	}
	open := 0
	for _, row := range rows {
		if now.After(row.Value.GetExpireTime().AsTime().Add(keptAfter)) {
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
		return status.Errorf(codes.ResourceExhausted,
			"%d invitations are open, which is the limit; revoke some, or wait until they expire", open)
	}
	return nil
}

// GetInvitation returns one invitation with its state.
func (m *Agreements) GetInvitation(
	ctx context.Context,
	req *ententev1.GetInvitationRequest,
) (*ententev1.Invitation, error) {
	if !token.IsID(req.GetId()) {
		return nil, status.Errorf(codes.InvalidArgument,
			"id %s is not that of an invitation, which has 32 hexadecimal digits; `entente federation invitations` "+
				"lists all", relationship.Quote(req.GetId()))
	}
	view, err := m.read(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	row, found, err := invitations.Get(view, req.GetId())
	switch {
	case err != nil:
		return nil, raftstore.StatusError(err)
	case !found:
		return nil, missing(req.GetId())
	}
	return invitationShown(row.Key, row.Value, m.config.Now()), nil
}

// missing is the error for an invitation that is not stored.
func missing(id string) error {
	return status.Errorf(codes.NotFound, "there is no invitation %s; `entente federation invitations` lists all",
		relationship.Quote(id))
}

// ListInvitations returns all invitations of this cluster with their states.
func (m *Agreements) ListInvitations(
	ctx context.Context,
	req *ententev1.ListInvitationsRequest,
) (*ententev1.ListInvitationsResponse, error) {
	view, err := m.read(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	rows, err := invitations.List(view, "")
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	out, now := &ententev1.ListInvitationsResponse{Revision: uint64(view.Revision())}, m.config.Now()
	for _, row := range rows {
		out.Invitations = append(out.Invitations, invitationShown(row.Key, row.Value, now))
	}
	return out, nil
}

// RevokeInvitation revokes an open invitation.
func (m *Agreements) RevokeInvitation(
	ctx context.Context,
	req *ententev1.RevokeInvitationRequest,
) (*ententev1.RevokeInvitationResponse, error) {
	now := m.config.Now()
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := invitations.Get(tx, req.GetId())
		switch {
		case err != nil:
			return err
		case !found:
			return missing(req.GetId())
		case row.Value.GetRedemption() != nil:
			return status.Errorf(codes.FailedPrecondition,
				"the invitation was used at %s; `entente federation delete %s` ends its agreement",
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

// SurviveRestore keeps used and revoked invitations over an operator's restore, and deletes open ones: an invitation
// that was open in the backup may have been used or revoked since.
func SurviveRestore(before, restored *raftstore.View, tx *raftstore.Tx) error {
	over := func(i *statev1.Invitation) bool { return i.GetRedemption() != nil || i.GetRevokeTime() != nil }
	was, err := invitations.List(before, "")
	if err != nil {
		return err
	}
	is, err := invitations.List(restored, "")
	if err != nil {
		return err
	}
	errs := []error{keepEndpoints(before, restored, tx)}
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
