package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// lookAtAnchors is how often a member that waits for the leader to do something with anchors looks again.
const lookAtAnchors = 30 * time.Second

// seenAnchors are the anchors that this member's upstream lists for a domain, and whether it knows them. A member whose
// upstream has no anchors of its own knows that there are none.
func (m *Manager) seenAnchors(td spiffeid.TrustDomain) (listed []*x509.Certificate, seen bool) {
	if m.anchors == nil {
		return nil, true
	}
	listed, _ = m.anchors.Anchors(td)
	return listed, len(listed) > 0
}

// followAnchors has the loops look whenever the anchors of the upstream changed, until ctx ends.
func (m *Manager) followAnchors(ctx context.Context) error {
	if m.anchors == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		_, changed := m.anchors.Anchors(m.config.Home)
		m.changed.fire()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// tendAnchors brings the anchors of the upstreams of all domains to where they have to be.
func (m *Manager) tendAnchors(ctx context.Context) (next time.Time, err error) {
	if !m.config.Contact.ClockSane() {
		return m.config.Now().Add(clockCheck), nil
	}
	domains, err := table.Domains.List(m.config.Store.View(), "")
	if err != nil {
		return plan.Never, err
	}
	var errs []error
	for _, domain := range domains {
		at, err := m.tendAnchorsOf(ctx, domain.Key)
		if err != nil {
			errs = append(errs, fmt.Errorf("anchors of %s: %w", domain.Key, err))
		}
		next = plan.Sooner(next, at)
	}
	return next, errors.Join(errs...)
}

// tendAnchorsOf carries out the plan for the anchors of one domain's upstream, and says when to look again.
func (m *Manager) tendAnchorsOf(ctx context.Context, name string) (time.Time, error) {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return plan.Never, err
	}
	view := m.config.Store.View()
	domain, ok, err := table.Domains.Get(view, name)
	if err != nil || !ok {
		return plan.Never, err
	}
	listed, seen := m.seenAnchors(td)
	s, err := m.anchorSituation(view, domain.Value, listed, seen, m.config.Now())
	if err != nil {
		return plan.Never, err
	}
	actions, next := plan.Anchors(s)
	if len(actions) == 0 {
		if !s.Leads && len(s.Known) != len(s.Listed) {
			next = plan.Sooner(next, s.Now.Add(lookAtAnchors)) // it may lead by then
		}
		return next, nil
	}
	err = m.update(ctx, name, func(tx *raftstore.Tx) ([]done, error) { return m.carryOutAnchors(tx, td, listed, seen) })
	if err != nil {
		return plan.Never, err
	}
	return m.config.Now().Add(lookAtAnchors), nil
}

// carryOutAnchors plans anew inside the transaction, and carries the plan out.
func (m *Manager) carryOutAnchors(tx *raftstore.Tx, td spiffeid.TrustDomain, listed []*x509.Certificate, seen bool) ([]done, error) {
	domain, ok, err := table.Domains.Get(tx, td.Name())
	if err != nil || !ok {
		return nil, err
	}
	now, err := m.saneNow()
	if err != nil {
		return nil, err
	}
	s, err := m.anchorSituation(tx, domain.Value, listed, seen, now)
	if err != nil {
		return nil, err
	}
	actions, _ := plan.Anchors(s)
	var carried []done
	for _, action := range actions {
		if err := m.changeAnchor(tx, domain.Value, action, now); err != nil {
			return nil, err
		}
		d, err := anchorDone(action)
		if err != nil {
			return nil, err
		}
		carried = append(carried, d)
	}
	if carried, err = m.finish(tx, domain.Value, carried, now); err != nil {
		return nil, err
	}
	return carried, publishedWith(tx, td.Name(), carried)
}

// publishedWith writes down with anchors that were just published which sequence of the bundle did that.
func publishedWith(tx *raftstore.Tx, td string, carried []done) error {
	for _, d := range carried {
		if d.Do != plan.Verb(plan.PublishAnchor) || d.Sequence == 0 {
			continue
		}
		key := table.AnchorKey(td, d.anchor.Raw)
		row, ok, err := table.UpstreamAnchors.Get(tx, key)
		if err != nil || !ok {
			return err
		}
		row.Value.PublishSequence = d.Sequence
		if err := table.UpstreamAnchors.Put(tx, key, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// anchorDone is a step with an anchor, as logs tell it.
func anchorDone(action plan.AnchorAction) (done, error) {
	c, err := x509.ParseCertificate([]byte(action.ID))
	if err != nil {
		return done{}, fmt.Errorf("an anchor of the upstream: %w", err)
	}
	return done{Action: plan.Action{Do: plan.Verb(action.Do), Kind: plan.X509, ID: svid.AnchorID(c), Why: action.Why}, anchor: c}, nil
}

// errHeld is wrapped where the upstream signs below an anchor that an operator has not approved.
var errHeld = errors.New("the anchor waits for approval")

// admitAnchor publishes what the upstream has just been seen to list, and says why nothing may be signed below an anchor.
func (m *Manager) admitAnchor(ctx context.Context, td spiffeid.TrustDomain, anchor *x509.Certificate) error {
	view := m.config.Store.View()
	revoked, err := table.RevokedSet(view, td.Name())
	if err != nil {
		return err
	}
	if revoked(anchor.Raw) {
		return fmt.Errorf("the upstream signs below the anchor %s, which was revoked; make an issuer below another one its default", svid.AnchorID(anchor))
	}
	if m.anchors == nil {
		return nil
	}
	if first, err := table.HasNoAnchor(m.config.Store.View(), td.Name()); err != nil || first {
		return err // it comes with the authority
	}
	if _, err := m.tendAnchorsOf(ctx, td.Name()); err != nil {
		return err
	}
	published, err := table.AnchorPublished(m.config.Store.View(), td.Name(), anchor.Raw)
	switch {
	case err != nil || published:
		return err
	case m.config.AnchorApproval:
		return fmt.Errorf("the upstream signs below the anchor %s (%s), which is new: if it is meant to be, run 'entente authority approve %s --domain %s': %w",
			svid.AnchorID(anchor), anchor.Subject, svid.AnchorID(anchor), td.Name(), errHeld)
	}
	return fmt.Errorf("the upstream signs below the anchor %s (%s), which it does not list among its anchors", svid.AnchorID(anchor), anchor.Subject)
}

// refusedAnchor says below which anchors nothing must be signed now: what was revoked, and what is not approved yet.
func (m *Manager) refusedAnchor(r raftstore.Reader, td string) (func(*x509.Certificate) bool, error) {
	revoked, err := table.RevokedSet(r, td)
	if err != nil {
		return nil, err
	}
	rows, err := table.ListUpstreamAnchors(r, td)
	if err != nil {
		return nil, err
	}
	published := map[string]bool{}
	for _, row := range rows {
		if row.GetPublished() {
			published[string(row.GetCertificate())] = true
		}
	}
	return func(c *x509.Certificate) bool {
		return revoked(c.Raw) || (m.config.AnchorApproval && len(published) > 0 && !published[string(c.Raw)])
	}, nil
}

// bringAnchor publishes the anchor of an authority with it, where the domain has none yet. It returns that as a step that was
// taken, if it was, and whether the authority may be there at all: not below an anchor that has left, or waits for approval.
func (m *Manager) bringAnchor(tx *raftstore.Tx, domain *statev1.Domain, row *statev1.Authority, now time.Time) (brought []done, may bool, err error) {
	if m.anchors == nil || len(row.GetAnchors()) == 0 {
		return nil, true, nil
	}
	published, err := table.AnchorPublished(tx, domain.GetTrustDomain(), row.GetAnchors()[0])
	if err != nil || published {
		return nil, published, err
	}
	first, err := table.HasNoAnchor(tx, domain.GetTrustDomain())
	if err != nil || !first {
		return nil, false, err
	}
	action := plan.AnchorAction{Do: plan.PublishAnchor, ID: string(row.GetAnchors()[0]), Why: "the domain begins with it"}
	if err := m.changeAnchor(tx, domain, action, now); err != nil {
		return nil, false, err
	}
	d, err := anchorDone(action)
	return []done{d}, err == nil, err
}
