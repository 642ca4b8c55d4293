package federation

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// deletionEffects returns what the deletion of a relationship would do.
func (s *Service) deletionEffects(
	ctx context.Context, req *ententev1.DeleteRelationshipRequest,
) (*ententev1.DeleteRelationshipResponse, error) {
	config := s.manager.config
	response := &ententev1.DeleteRelationshipResponse{}
	err := raftstore.Try(ctx, config.Store, func(tx *raftstore.Tx) error {
		row, err := relationship.Get(config.Trust.Sources, tx, req.GetTrustDomain())
		if err != nil {
			return err
		}
		if err := relationship.CheckEtag(req.GetEtag(), row); err != nil {
			return err
		}
		response.Effects = endEffects(row, req.GetToHub())
		return relationship.DeleteWithLinkedHome(config.Trust.Sources, tx, row, req.GetToHub())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	view := config.Store.View()
	response.Revision = uint64(view.Revision())
	td, err := relationship.ParseTrustDomain(req.GetTrustDomain())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if config.Depends == nil || req.GetToHub() {
		return response, nil
	}
	others, err := config.Depends(view, td)
	response.Effects = append(response.Effects, others...)
	return response, raftstore.StatusError(err)
}

// endEffects returns what the end of a relationship does.
func endEffects(row *statev1.Relationship, toHub bool) []*ententev1.Effect {
	name := row.GetTrustDomain()
	detail := "is no longer trusted: its SVIDs are refused here at once, and its bundle is deleted"
	if toHub {
		detail = "is trusted by the attestation of a hub from then on; the bundle from its own endpoint is deleted"
	}
	out := []*ententev1.Effect{{Kind: "relationship", Subject: name, Detail: detail}}
	if home := row.GetPeer().GetHomeTrustDomain(); home != "" {
		out = append(out, &ententev1.Effect{
			Kind: "peer", Subject: home, Detail: "loses the stream for " + name + ", with its exports and imports",
		})
	}
	if a := row.GetAgreement(); a != nil && a.GetEndTime() == nil && !a.GetLinkedHome() {
		out = append(out, &ententev1.Effect{
			Kind: "peer", Subject: name,
			Detail: fmt.Sprintf("no longer trusts %s: the agreement %s ends there too, as soon as it can be reached",
				a.GetHostedTrustDomain(), a.GetId()),
		})
	}
	if len(row.GetHub().GetInclude()) > 0 {
		out = append(out, &ententev1.Effect{
			Kind: "relationship", Subject: "all that the hub " + name + " attests",
			Detail: "are no longer trusted by its attestation",
		})
	}
	return out
}

// EndHosted ends, in the transaction that deletes a hosted trust domain, the agreements by which other clusters trust
// it. It returns their effects, and what tells the other sides once the transaction has been committed.
func (m *Manager) EndHosted(
	tx *raftstore.Tx, td spiffeid.TrustDomain,
) (effects []*ententev1.Effect, done func(), err error) {
	rows, err := relationship.Relationships.List(tx, "")
	if err != nil {
		return nil, nil, err
	}
	var ended []*statev1.Relationship
	for _, row := range rows {
		a := row.Value.GetAgreement()
		if a == nil || a.GetLinkedHome() || a.GetHostedTrustDomain() != td.Name() {
			continue
		}
		effects = append(effects, endEffects(row.Value, false)...)
		if err := relationship.DeleteWithLinkedHome(m.config.Trust.Sources, tx, row.Value, false); err != nil {
			return nil, nil, err
		}
		ended = append(ended, row.Value)
	}
	return effects, func() {
		for _, row := range ended {
			m.agreements.Terminated(row)
		}
	}, nil
}
