package authority

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// ListAnchors lists the anchors of one hosted domain or of all: what is in the bundle, and what waits for approval.
func (s *authorityService) ListAnchors(ctx context.Context, r *ententev1.ListAnchorsRequest) (*ententev1.ListAnchorsResponse, error) {
	view, err := s.m.view(ctx, r.GetRead())
	if err != nil {
		return nil, err
	}
	domains, err := s.m.named(view, r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	response := &ententev1.ListAnchorsResponse{Revision: uint64(view.Revision())}
	for _, domain := range domains {
		anchors, err := s.m.anchorMessages(view, domain)
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		response.Anchors = append(response.Anchors, anchors...)
	}
	return response, nil
}

// anchorMessages are the anchors of a domain as the API shows them, in order of their key IDs.
func (m *Manager) anchorMessages(r raftstore.Reader, domain *statev1.Domain) ([]*ententev1.Anchor, error) {
	td := domain.GetTrustDomain()
	published, err := hostedBundle(r, td)
	if err != nil {
		return nil, err
	}
	rows, err := table.ListAuthorities(r, td)
	if err != nil {
		return nil, err
	}
	fed, err := table.ListUpstreamAnchors(r, td)
	if err != nil {
		return nil, err
	}
	messages := map[string]*ententev1.Anchor{}
	add := func(c *x509.Certificate, state ententev1.AnchorState) *ententev1.Anchor {
		sum := sha256.Sum256(c.Raw)
		a := &ententev1.Anchor{
			TrustDomain: td, KeyId: svid.AnchorID(c), Sha256: hex.EncodeToString(sum[:]), Subject: c.Subject.String(),
			NotBefore: timestamppb.New(c.NotBefore), NotAfter: timestamppb.New(c.NotAfter), State: state,
		}
		messages[string(c.Raw)] = a
		return a
	}
	if published != nil {
		for _, c := range published.X509Authorities() {
			add(c, ententev1.AnchorState_ANCHOR_STATE_PUBLISHED)
		}
	}
	for _, row := range fed {
		a := messages[string(row.GetCertificate())]
		if a == nil {
			c, err := x509.ParseCertificate(row.GetCertificate())
			if err != nil {
				return nil, fmt.Errorf("an anchor of the upstream of %s: %w", td, err)
			}
			a = add(c, ententev1.AnchorState_ANCHOR_STATE_PENDING)
		}
		a.Upstream, a.SeenBy, a.SeenTime = true, row.GetSeenBy(), row.GetSeenTime()
		a.PublishTime, a.ReadyTime, a.UnlistedTime = row.GetPublishTime(), row.GetReadyTime(), row.GetUnlistedTime()
	}
	for _, row := range rows {
		if len(row.GetAnchors()) == 0 {
			continue
		}
		if a := messages[string(row.GetAnchors()[0])]; a != nil {
			a.Authorities++
			a.Upstream = a.Upstream || row.GetUpstreamAnchor()
		}
	}
	out := make([]*ententev1.Anchor, 0, len(messages))
	for _, a := range messages {
		a.Remark = anchorRemark(a, m.config.Now())
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *ententev1.Anchor) int {
		return cmp.Or(cmp.Compare(a.GetKeyId(), b.GetKeyId()), cmp.Compare(a.GetSha256(), b.GetSha256()))
	})
	return out, nil
}

// anchorRemark is a sentence on what an anchor waits for, or why it is still there.
func anchorRemark(a *ententev1.Anchor, now time.Time) string {
	switch {
	case a.GetState() == ententev1.AnchorState_ANCHOR_STATE_PENDING:
		return "It waits for approval ('entente authority approve'); nothing is signed below it."
	case a.GetUnlistedTime() != nil && a.GetAuthorities() > 0:
		return "The upstream lists it no more; it stays until all that was signed below it has expired."
	case a.GetUnlistedTime() != nil:
		return "The upstream lists it no more, and nothing is below it; it leaves in a moment."
	case a.GetReadyTime() != nil && now.Before(a.GetReadyTime().AsTime()):
		return "Not every reader of the bundle may know it yet."
	}
	return ""
}

// ApproveAnchor publishes an anchor that waits for it.
func (s *authorityService) ApproveAnchor(ctx context.Context, r *ententev1.ApproveAnchorRequest) (*ententev1.ApproveAnchorResponse, error) {
	wanted := strings.ToLower(r.GetAnchor())
	if wanted == "" {
		return nil, status.Error(codes.InvalidArgument, "anchor is empty; name one by its key ID or its SHA-256, as 'entente authority anchors' shows them")
	}
	var approved *x509.Certificate
	did, err := s.m.steer(ctx, r.GetTrustDomain(), func(tx *raftstore.Tx, domain *statev1.Domain, situation plan.Situation) ([]plan.Action, error) {
		var err error
		approved, err = s.m.approve(tx, domain, wanted, situation.Now)
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	s.m.log.Info("approve anchor", "trust_domain", did.domain.GetTrustDomain(), "id", svid.AnchorID(approved), "revision", did.revision)
	messages, err := s.m.anchorMessages(s.m.config.Store.View(), did.domain)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	response := &ententev1.ApproveAnchorResponse{Revision: uint64(did.revision)}
	for _, a := range messages {
		if a.GetKeyId() == svid.AnchorID(approved) {
			response.Anchor = a
		}
	}
	return response, nil
}

// approve publishes the one anchor of the domain's upstream of that key ID or SHA-256 which waits for it.
func (m *Manager) approve(tx *raftstore.Tx, domain *statev1.Domain, wanted string, now time.Time) (*x509.Certificate, error) {
	rows, err := table.ListUpstreamAnchors(tx, domain.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		c, err := x509.ParseCertificate(row.GetCertificate())
		if err != nil {
			return nil, fmt.Errorf("an anchor of the upstream of %s: %w", domain.GetTrustDomain(), err)
		}
		sum := sha256.Sum256(c.Raw)
		if wanted != svid.AnchorID(c) && wanted != hex.EncodeToString(sum[:]) {
			continue
		}
		if row.GetPublished() {
			return nil, refused{fmt.Errorf("anchor %s of %s is in the bundle already", svid.AnchorID(c), domain.GetTrustDomain())}
		}
		if err := m.changeAnchor(tx, domain, plan.AnchorAction{Do: plan.PublishAnchor, ID: string(c.Raw)}, now); err != nil {
			return nil, err
		}
		d := done{Action: plan.Action{Do: plan.Verb(plan.PublishAnchor)}, anchor: c}
		if d.Sequence, err = m.publish(tx, domain, now); err != nil {
			return nil, err
		}
		return c, publishedWith(tx, domain.GetTrustDomain(), []done{d})
	}
	return nil, refused{fmt.Errorf("%w: the upstream of %s has no anchor %q that waits for approval; 'entente authority anchors %s' shows what it has", errNoAnchor, domain.GetTrustDomain(), wanted, domain.GetTrustDomain())}
}
