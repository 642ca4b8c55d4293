package anchor

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// situation reads the input of [plan.Anchors] for a domain.
func (c *Reconciler) situation(
	r raftstore.Reader, domain *statev1.Domain, now time.Time,
) (plan.AnchorSituation, error) {
	td, err := spiffeid.TrustDomainFromString(domain.GetTrustDomain())
	if err != nil {
		return plan.AnchorSituation{}, err
	}
	revoked, err := table.RevokedSet(r, td.Name())
	if err != nil {
		return plan.AnchorSituation{}, err
	}
	rows, err := table.ListAuthorities(r, td.Name())
	if err != nil {
		return plan.AnchorSituation{}, err
	}
	first, err := table.HasNoAnchor(r, td.Name())
	if err != nil {
		return plan.AnchorSituation{}, err
	}
	listed, seen := c.listed(td)
	s := plan.AnchorSituation{
		Now: now, Leads: c.Store.IsLeader(), Approval: c.Approval, Seen: seen, First: first,
		Revoked: func(id string) bool { return revoked([]byte(id)) },
	}
	inUse := map[string]bool{}
	for _, row := range rows {
		if len(row.GetAnchors()) > 0 {
			inUse[string(row.GetAnchors()[0])] = true
		}
	}
	for _, cert := range listed {
		s.Listed = append(s.Listed, plan.ListedAnchor{ID: string(cert.Raw), NotAfter: cert.NotAfter})
	}
	known, err := table.ListUpstreamAnchors(r, td.Name())
	if err != nil {
		return plan.AnchorSituation{}, err
	}
	for _, row := range known {
		if row.GetSuccessorOf() != "" {
			continue // the member decides on it
		}
		cert, err := parse(row)
		if err != nil {
			return plan.AnchorSituation{}, err
		}
		id := string(row.GetCertificate())
		s.Known = append(s.Known, plan.KnownAnchor{
			ID: id, NotAfter: cert.NotAfter, Published: row.GetPublished(),
			Unlisted: table.TimeOf(row.GetUnlistedTime()), InUse: inUse[id],
		})
	}
	return s, nil
}

// parse returns the certificate of an anchor.
func parse(row *statev1.UpstreamAnchor) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(row.GetCertificate())
	if err != nil {
		return nil, fmt.Errorf("an anchor of the upstream of %s: %w", row.GetTrustDomain(), err)
	}
	return cert, nil
}

// change carries out an action on an anchor, and returns it as a step.
func (c *Reconciler) change(
	tx *raftstore.Tx, domain *statev1.Domain, action plan.AnchorAction, now time.Time,
) (journal.Step, error) {
	cert, err := x509.ParseCertificate([]byte(action.ID))
	if err != nil {
		return journal.Step{}, fmt.Errorf("an anchor of the upstream: %w", err)
	}
	step := journal.Step{
		Action: plan.Action{
			Do: plan.Verb(action.Do), Kind: plan.X509, ID: svid.AnchorID(cert), Why: action.Why,
		}, Anchor: cert,
	}
	td := domain.GetTrustDomain()
	key := table.AnchorKey(td, cert.Raw)
	if action.Do == plan.DropAnchor {
		return step, table.UpstreamAnchors.Delete(tx, key)
	}
	row, _, err := table.UpstreamAnchors.Get(tx, key)
	if err != nil {
		return step, err
	}
	anchor := row.Value
	if anchor == nil {
		anchor = &statev1.UpstreamAnchor{
			TrustDomain: td, Certificate: cert.Raw, SeenBy: c.Member, SeenTime: timestamppb.New(now),
		}
	}
	switch action.Do {
	case plan.PublishAnchor:
		ready, err := table.AnchorReady(tx, domain, cert.Raw, now)
		if err != nil {
			return step, err
		}
		anchor.Published, anchor.PublishTime, anchor.ReadyTime = true, timestamppb.New(now), timestamppb.New(ready)
	case plan.UnlistAnchor:
		anchor.UnlistedTime = timestamppb.New(now)
	case plan.RelistAnchor:
		anchor.UnlistedTime = nil
	}
	return step, table.UpstreamAnchors.Put(tx, key, anchor)
}

// Approve publishes the anchor of the domain's upstream with that key ID or SHA-256, which waits for approval. Errors
// that an operator can act on are [plan.Refusal]s.
func (c *Reconciler) Approve(
	tx *raftstore.Tx, domain *statev1.Domain, wanted string, now time.Time,
) (*x509.Certificate, error) {
	td := domain.GetTrustDomain()
	rows, err := table.ListUpstreamAnchors(tx, td)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		cert, err := parse(row)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(cert.Raw)
		if wanted != svid.AnchorID(cert) && wanted != hex.EncodeToString(sum[:]) {
			continue
		}
		if row.GetPublished() {
			return nil, plan.Refusal{
				Err: fmt.Errorf("anchor %s of %s is in the bundle already", svid.AnchorID(cert), td),
			}
		}
		step, err := c.change(tx, domain, plan.AnchorAction{Do: plan.PublishAnchor, ID: string(cert.Raw)}, now)
		if err != nil {
			return nil, err
		}
		_, err = c.Publisher.Finish(tx, domain, []journal.Step{step}, now)
		return cert, err
	}
	return nil, plan.Refusal{Err: fmt.Errorf(
		"%w: the upstream of %s has no anchor %q that waits for approval; 'entente authority anchors %s' lists its "+
			"anchors",
		plan.ErrNoAnchor, td, wanted, td)}
}
