package invitation

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
)

// receive stores the other side's consent to an agreement, and its announcement. If sure is true, the other side has or
// had the agreement, so that an end from it counts at once.
func (m *Agreements) receive(ctx context.Context, name, id string, consent ententev1.Consent,
	announced relationship.Announcement, sure bool,
) error {
	var was, is ententev1.RelationshipState
	var pending []string
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		was, is, pending = 0, 0, nil
		changed, err := relationship.UpdateAgreement(tx, name, id, func(row *statev1.Relationship) bool {
			if a := row.GetAgreement(); sure && consent == ententev1.Consent_CONSENT_ENDED {
				a.Confirmed = true
			}
			return relationship.ReceiveConsent(row, consent, announced, m.config.Now())
		})
		if err != nil || !changed {
			return err
		}
		before, _, err := relationship.Relationships.Get(m.config.Store.View(), name)
		if err != nil {
			return err
		}
		after, _, err := relationship.Relationships.Get(tx, name)
		was, is = relationship.StateOf(before.Value), relationship.StateOf(after.Value)
		a := after.Value.GetAgreement()
		pending = slices.Concat(a.GetPendingUrls(), a.GetPendingAddresses())
		if digest := endpoint.RootsDigest(a.GetPendingWebRoots()); digest != nil {
			pending = append(pending, fmt.Sprintf("web roots of SHA-256 %x", digest))
		}
		return err
	})
	if err != nil || is == 0 {
		return err
	}
	if is == ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED {
		m.config.Log.Warn("agreement ended by the other side; its trust domain is not trusted any more",
			"trust_domain", name)
	} else {
		m.config.Log.Info("consent of the other side of an agreement received", "trust_domain", name, "was", was, "is",
			is)
	}
	if len(pending) > 0 {
		m.config.Log.Warn("the other side of an agreement announces hosts or web roots that were not agreed; nothing "+
			"uses them before 'entente federation approve'", "trust_domain", name, "announced", pending)
	}
	m.config.Intake.Record(actionConsent, name, consentName(consent), "by the other side of agreement "+id, revision)
	return nil
}

func consentName(c ententev1.Consent) string {
	switch c {
	case ententev1.Consent_CONSENT_APPROVED:
		return "approved"
	case ententev1.Consent_CONSENT_ENDED:
		return "ended"
	default:
		return "open"
	}
}

// ExchangeConsent stores the consent of the other side of an agreement, and returns this side's. For an agreement that
// does not exist here it returns that it has ended.
func (s *Service) ExchangeConsent(ctx context.Context, req *ententev1.ExchangeConsentRequest,
) (*ententev1.ExchangeConsentResponse, error) {
	c := &ententev1.ExchangeConsentContent{}
	signer, err := s.signer(ctx, purposeConsent, req.GetSigned(), req.GetContent(), c)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !token.IsID(c.GetAgreementId()) { // this also excludes relationships without an agreement
		return nil, raftstore.StatusError(refuseInvitation("malformed", codes.InvalidArgument,
			"the agreement's id is malformed"))
	}
	m := s.agreements
	view, err := m.config.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	row, found, err := relationship.Relationships.Get(view, c.GetTrustDomain())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	a := row.Value.GetAgreement()
	if !found || a.GetId() != c.GetAgreementId() || a.GetHostedTrustDomain() != c.GetOtherTrustDomain() {
		return &ententev1.ExchangeConsentResponse{Consent: ententev1.Consent_CONSENT_ENDED}, nil
	}
	if !relationship.HasMember(a.GetIdentities(), signer) {
		return nil, raftstore.StatusError(refuseInvitation("unknown_member", codes.Unauthenticated,
			"the calling member is not known here as one of the cluster of %s", c.GetTrustDomain()))
	}
	announced, err := relationship.ParseAnnouncement(c, m.config.Now())
	if err != nil {
		return nil, raftstore.StatusError(refuseInvitation("malformed", codes.InvalidArgument, "%v", err))
	}
	if !m.poller.allows(c.GetTrustDomain(), m.config.Now()) {
		return nil, raftstore.StatusError(refuseInvitation("too_often", codes.ResourceExhausted,
			"more than one call in %s for the agreement with %s; try again then", receiveEach, c.GetTrustDomain()))
	}
	if err := m.receive(ctx, c.GetTrustDomain(), a.GetId(), c.GetConsent(), announced, true); err != nil {
		return nil, raftstore.StatusError(err)
	}
	own := m.config.announcement(a.GetHostedTrustDomain(), a.GetAdvertised())
	return &ententev1.ExchangeConsentResponse{
		Consent: relationship.ConsentOf(a), Identities: own.Identities, Addresses: own.Addresses, Urls: own.Urls,
		HomeUrls: own.HomeURLs, WebRoots: own.WebRoots,
	}, nil
}
