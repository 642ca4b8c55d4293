package invitation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
)

const (
	// callWithin limits one call to a member of another cluster, which may have to wait for an election.
	callWithin = 15 * time.Second
	// maxJoinAnswer limits the response.
	maxJoinAnswer = 256 << 10
)

// RedeemInvitation accepts another cluster's invitation. It stores nothing before a member of that cluster,
// authenticated by an identity key that the token names, has accepted the secret.
func (m *Agreements) RedeemInvitation(
	ctx context.Context,
	req *ententev1.RedeemInvitationRequest,
) (*ententev1.RedeemInvitationResponse, error) {
	if m.config.Transport.Dial == nil {
		return nil, errDisabled
	}
	t, err := ParseToken(req.GetToken())
	if err != nil {
		return nil, apierror.Invalid(apierror.InField("token", err))
	}
	view, err := m.config.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	own, foreign := t.Foreign.Name(), t.TrustDomain.Name()
	switch row, found, err := relationship.Relationships.Get(view, foreign); {
	case err != nil:
		return nil, raftstore.StatusError(err)
	case found && row.Value.GetAgreement().GetId() == t.ID && row.Value.GetAgreement().GetEndTime() == nil:
		shown, err := m.config.Show(ctx, view, foreign) // accepted earlier, but the response was lost
		return &ententev1.RedeemInvitationResponse{Relationship: shown}, err
	}
	if hosted, err := m.config.Trust.Hosted.Hosts(view, own); err == nil && !hosted {
		return nil, status.Errorf(codes.FailedPrecondition,
			"the invitation is for %s, which this cluster does not host; it was not used. Accept it where %s is "+
				"hosted, or request one for a domain of this cluster", own, own)
	}
	if err := m.agreeable(view, own, foreign); err != nil {
		return nil, raftstore.StatusError(err)
	}
	advertised, err := m.config.parseAdvertised(req.GetAdvertise())
	if err != nil {
		return nil, err
	}
	roots, doubts, err := m.webRoots(ctx)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	offer, err := m.offer(view, own, advertised, roots)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	approved, now := req.GetApprove() || m.config.Transport.NoApproval, m.config.Now()
	content := &ententev1.AcceptInvitationContent{
		InvitationId: t.ID, Secret: t.Secret[:], InvitingTrustDomain: foreign, Offer: offer, Approved: approved,
		Time: timestamppb.New(now),
	}
	answer, proven, err := m.callMembers(ctx, t, content)
	if err != nil {
		return nil, err
	}
	answer, warnings, err := m.crossCheck(ctx, t, content, answer, proven)
	if err != nil {
		return nil, err
	}
	operator := access.CallerFrom(ctx).String()
	agreement := &statev1.RelationshipAgreement{
		Id: t.ID, HostedTrustDomain: own, Confirmed: true, Advertised: advertised,
	}
	if approved {
		agreement.ApproveTime, agreement.Approver = timestamppb.New(now), operator
	}
	if answer.GetApproved() {
		agreement.PeerApproveTime = timestamppb.New(now)
	}
	if answer.GetOffer().GetTrustDomain() != foreign {
		return nil, status.Errorf(codes.Aborted, "the response of the other cluster is for %s, not for %s",
			relationship.Quote(answer.GetOffer().GetTrustDomain()), foreign)
	}
	all, err := relationshipsOf(answer.GetOffer(), agreement, relationship.AtLoopback(m.config.ownAddresses()), now)
	if err != nil {
		return nil, status.Errorf(codes.Aborted,
			"the other cluster accepted the invitation, but its offer is refused here: %s",
			relationship.Clip(err.Error()))
	}
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if row, found, err := relationship.Relationships.Get(tx, foreign); err != nil ||
			found && row.Value.GetAgreement().GetId() == t.ID {
			return err
		}
		for _, r := range all {
			if err := access.PermitsVerification(ctx, tx, r.rel.TrustDomain); err != nil {
				return err
			}
		}
		return m.agree(tx, all, req.GetHomeTrustDomain(), "invitation "+t.ID, proven, now)
	})
	if err != nil {
		s := status.Convert(raftstore.StatusError(err))
		return nil, status.Errorf(s.Code(),
			"the other cluster accepted the invitation, but nothing is stored here yet: %s; accept the same token "+
				"again",
			s.Message())
	}
	m.config.Intake.Record(actionInvited, foreign, audit.ResultDone,
		fmt.Sprintf("invitation %s for %s, accepted by %s", t.ID, own, operator), revision)
	for _, r := range all {
		m.config.Intake.CompareWithHubs(ctx, r.rel.TrustDomain.Name())
	}
	m.poller.trigger(foreign)
	shown, err := m.config.Show(ctx, m.config.Store.View(), foreign)
	return &ententev1.RedeemInvitationResponse{
		Relationship: shown,
		Warnings:     slices.Concat(warnings, doubts, clockWarnings(answer.GetTime(), m.config.Now())),
	}, err
}

// clockWarnings returns a warning if the clocks differ so much that certificates of one cluster may not be valid yet in
// the other.
func clockWarnings(theirs *timestamppb.Timestamp, now time.Time) []string {
	if !theirs.IsValid() {
		return nil
	}
	apart := now.Sub(theirs.AsTime())
	if apart.Abs() <= clockTolerance {
		return nil
	}
	way := "ahead of"
	if apart < 0 {
		way = "behind"
	}
	return []string{
		fmt.Sprintf(
			"this member's clock is %s %s the other cluster's; certificates are valid by the clock, so correct the "+
				"wrong one",
			apart.Abs().Round(time.Second), way),
	}
}

// callMembers calls the members that a token names, in random order, until one decides. proven is the identity key of
// that member.
func (m *Agreements) callMembers(
	ctx context.Context,
	t Token,
	c *ententev1.AcceptInvitationContent,
) (answer *ententev1.AcceptInvitationResponse, proven [32]byte, err error) {
	content, err := proto.Marshal(c)
	if err != nil {
		return nil, proven, status.Error(codes.Internal, err.Error())
	}
	addresses := slices.Clone(t.Addresses)
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	var failures []string
	for _, address := range addresses {
		answer, proven, err = m.callOne(ctx, callWithin, address, t.accepts, content)
		if err == nil {
			return answer, proven, nil
		}
		if s := status.Convert(err); decided(err) {
			return nil, proven, status.Error(s.Code(),
				relationship.Clip(s.Message())) // the other members would decide the same
		}
		failures = append(failures, fmt.Sprintf("%s: %s", address, relationship.Clip(status.Convert(err).Message())))
		if ctx.Err() != nil {
			break
		}
	}
	slices.Sort(failures)
	late := ""
	if !m.config.Now().Before(t.Expires) {
		late = fmt.Sprintf("; by this member's clock the invitation expired at %s",
			t.Expires.UTC().Format(time.RFC3339))
	}
	return nil, proven, status.Errorf(codes.Unavailable,
		"no member of the cluster of %s accepted the invitation: %s%s. Make one of these addresses reachable from "+
			"here, and accept the same token again", t.TrustDomain.Name(), strings.Join(failures, "; "), late)
}

// callOne calls the member at one address. accept checks its identity key first.
func (m *Agreements) callOne(
	ctx context.Context,
	within time.Duration,
	address string,
	accept func([32]byte) error,
	content []byte,
) (answer *ententev1.AcceptInvitationResponse, proven [32]byte, err error) {
	err = m.callMember(ctx, within, address, func(presented [32]byte) error {
		proven = presented
		return accept(presented)
	}, func(ctx context.Context, client ententev1.InvitationServiceClient, binding []byte) error {
		signed, err := m.sign(purposeAccept, binding, content)
		if err != nil {
			return err
		}
		answer, err = client.AcceptInvitation(ctx, &ententev1.AcceptInvitationRequest{Content: content, Signed: signed})
		return err
	})
	return answer, proven, err
}

// sign signs a request for one TLS session.
func (m *Agreements) sign(purpose string, binding, content []byte) (*ententev1.IdentitySignature, error) {
	identity := m.config.Transport.Identity
	signature, err := identity.Sign(purpose, binding, content)
	if err != nil {
		return nil, err
	}
	return &ententev1.IdentitySignature{
		IdentityCertificate: identity.Certificate.Certificate[0],
		Signature:           signature,
	}, nil
}

// callMember calls a member of another cluster that is known by its identity key. If accept returns an error, the
// handshake is aborted and nothing is sent, so that only the holder of an accepted key receives the request.
func (m *Agreements) callMember(ctx context.Context, within time.Duration, address string, accept func([32]byte) error,
	call func(ctx context.Context, client ententev1.InvitationServiceClient, binding []byte) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var refusal error
	raw, binding, err := m.config.Transport.Dial(ctx, address, func(presented [32]byte) error {
		refusal = accept(presented)
		return refusal
	})
	if refusal != nil {
		return refusal
	}
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }() // gRPC closes it, unless it never dialed
	once := make(chan net.Conn, 1)
	once <- raw
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(m.config.Transport.Credentials), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxJoinAnswer)), grpc.WithMaxHeaderListSize(16<<10),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection was closed")
			}
		}))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return call(ctx, ententev1.NewInvitationServiceClient(conn), binding)
}
