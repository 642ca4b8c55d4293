package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// federate federates the regions by one invitation, which both sides approve.
func (s *story) federate(ctx context.Context) (string, error) {
	start := time.Now()
	invites := s.endpoints[s.eu].conn.Federation()
	accepts := s.endpoints[s.us].conn.Federation()
	// Each side offers the endpoint of the called member: the members of the demo share one host, and have a port each.
	invitation, err := invites.CreateInvitation(
		ctx,
		&ententev1.CreateInvitationRequest{TrustDomain: s.eu.domain.Name(), ForeignTrustDomain: s.us.domain.Name()},
	)
	if err != nil {
		return "", fmt.Errorf("invite %s: %w", s.us.domain.Name(), err)
	}
	redeem := &ententev1.RedeemInvitationRequest{Token: invitation.GetToken()}
	if _, err := accepts.RedeemInvitation(ctx, redeem); err != nil {
		return "", fmt.Errorf("accept the invitation of %s: %w", s.eu.domain.Name(), err)
	}
	for _, side := range []struct {
		service ententev1.FederationServiceClient
		with    *region
	}{{accepts, s.eu}, {invites, s.us}} {
		approve := &ententev1.ApproveRelationshipRequest{TrustDomain: side.with.domain.Name()}
		if _, err := side.service.ApproveRelationship(ctx, approve); err != nil {
			return "", fmt.Errorf("approve the agreement with %s: %w", side.with.domain.Name(), err)
		}
	}
	if _, err := s.streamed(ctx, s.us, s.eu); err != nil {
		return "", err
	}
	stream, err := s.streamed(ctx, s.eu, s.us)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("eu invited, us accepted, and both approved; %.1f s after the invitation one stream, "+
		"between %s and %s, carries the bundle of each to the other",
		time.Since(start).Seconds(), stream.GetMember(), stream.GetRemoteMember()), nil
}

// streamed waits until a stream carries another region's bundle to a region, and returns it.
func (s *story) streamed(ctx context.Context, r, other *region) (stream *ententev1.PeerStream, err error) {
	td := other.domain.Name()
	err = poll(ctx, nil, func(ctx context.Context) (bool, error) {
		known, err := r.conn.Federation().GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: td})
		if err == nil && known.GetLastError() != "" {
			err = errors.New(known.GetLastError())
		}
		for _, p := range known.GetStreams() {
			if p.GetConnected() && len(p.GetConfirmed()) > 0 {
				stream = p
			}
		}
		return stream != nil && known.GetFreshness() == ententev1.Freshness_FRESHNESS_FRESH, err
	})
	if err != nil {
		return nil, fmt.Errorf("wait until a stream brings the bundle of %s to %s: %w", td, r.name, err)
	}
	return stream, nil
}

func bundleURL(m *member, r *region) string {
	return fmt.Sprintf("https://%s/bundles/%s", m.endpoint, r.domain.Name())
}
