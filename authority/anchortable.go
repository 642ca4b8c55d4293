package authority

import (
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// anchorSituation reads what decides what becomes of the anchors of a domain's upstream.
func (m *Manager) anchorSituation(r raftstore.Reader, domain *statev1.Domain, listed []*x509.Certificate, seen bool, now time.Time) (plan.AnchorSituation, error) {
	td := domain.GetTrustDomain()
	revoked, err := table.RevokedSet(r, td)
	if err != nil {
		return plan.AnchorSituation{}, err
	}
	rows, err := table.ListAuthorities(r, td)
	if err != nil {
		return plan.AnchorSituation{}, err
	}
	first, err := table.HasNoAnchor(r, td)
	if err != nil {
		return plan.AnchorSituation{}, err
	}
	s := plan.AnchorSituation{
		Now: now, Leads: m.config.Store.IsLeader(), Approval: m.config.AnchorApproval, Seen: seen, First: first,
		Revoked: func(id string) bool { return revoked([]byte(id)) },
	}
	inUse := map[string]bool{}
	for _, row := range rows {
		if len(row.GetAnchors()) > 0 {
			inUse[string(row.GetAnchors()[0])] = true
		}
	}
	for _, c := range listed {
		s.Listed = append(s.Listed, plan.ListedAnchor{ID: string(c.Raw), NotAfter: c.NotAfter})
	}
	known, err := table.ListUpstreamAnchors(r, td)
	if err != nil {
		return plan.AnchorSituation{}, err
	}
	for _, row := range known {
		c, err := x509.ParseCertificate(row.GetCertificate())
		if err != nil {
			return plan.AnchorSituation{}, fmt.Errorf("an anchor of the upstream of %s: %w", td, err)
		}
		id := string(row.GetCertificate())
		s.Known = append(s.Known, plan.KnownAnchor{
			ID: id, NotAfter: c.NotAfter, Published: row.GetPublished(), Unlisted: table.TimeOf(row.GetUnlistedTime()), InUse: inUse[id],
		})
	}
	return s, nil
}

// changeAnchor carries out one step with an anchor of a domain's upstream.
func (m *Manager) changeAnchor(tx *raftstore.Tx, domain *statev1.Domain, action plan.AnchorAction, now time.Time) error {
	td := domain.GetTrustDomain()
	key := table.AnchorKey(td, []byte(action.ID))
	if action.Do == plan.DropAnchor {
		return table.UpstreamAnchors.Delete(tx, key)
	}
	row, _, err := table.UpstreamAnchors.Get(tx, key)
	if err != nil {
		return err
	}
	anchor := row.Value
	if anchor == nil {
		anchor = &statev1.UpstreamAnchor{TrustDomain: td, Certificate: []byte(action.ID), SeenBy: m.config.Member, SeenTime: timestamppb.New(now)}
	}
	switch action.Do {
	case plan.PublishAnchor:
		ready, err := table.AnchorReady(tx, domain, []byte(action.ID), now)
		if err != nil {
			return err
		}
		anchor.Published, anchor.PublishTime, anchor.ReadyTime = true, timestamppb.New(now), timestamppb.New(ready)
	case plan.UnlistAnchor:
		anchor.UnlistedTime = timestamppb.New(now)
	case plan.RelistAnchor:
		anchor.UnlistedTime = nil
	}
	return table.UpstreamAnchors.Put(tx, key, anchor)
}
