// Package anchor maintains the anchors of the upstreams of hosted domains: the self-signed roots below which an
// upstream signs CA certificates.
//
// A new anchor is published before anything is signed below it, or waits for the approval of an operator. An anchor
// that the upstream no longer lists leaves the bundle once no authority is below it. [plan.Anchors] has the rules;
// [Reconciler] carries them out on every member, and the leader alone records what the upstream no longer lists.
//
// The anchors of a member's own roots are not kept here: they come and go with the authorities below them, and the next
// one of each member precedes them, as [plan.Succession] decides.
package anchor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/internal/clock"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
)

// checkInterval is the time after which a member that waits for the leader checks the anchors again.
const checkInterval = 30 * time.Second

// errUnapproved is wrapped if the upstream signs below an anchor that no operator has approved.
var errUnapproved = errors.New("the anchor waits for approval")

// Reconciler keeps the anchors of upstreams in the bundles of hosted domains. All fields but Source and Approval are
// required. Its methods can be called from any goroutine.
type Reconciler struct {
	Store  *raftstore.Store
	Member string
	// Source lists the anchors of this member's upstream. If nil, the upstream has no anchors of its own.
	Source upstream.AnchorSource
	// Approval makes a new anchor wait for an operator.
	Approval  bool
	Clock     clock.Clock
	Publisher *publish.Publisher
	Journal   *journal.Journal
}

// listed returns the anchors that this member's upstream lists for a domain. seen is false while the member does not
// know them yet. An upstream without anchors of its own lists none.
func (c *Reconciler) listed(td spiffeid.TrustDomain) (anchors []*x509.Certificate, seen bool) {
	if c.Source == nil {
		return nil, true
	}
	anchors, _ = c.Source.Anchors(td)
	return anchors, len(anchors) > 0
}

// Follow fires changed whenever the anchors of the upstream change, until ctx ends. It returns the error of ctx.
func (c *Reconciler) Follow(ctx context.Context, home spiffeid.TrustDomain, changed *loop.Signal) error {
	if c.Source == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		_, next := c.Source.Anchors(home)
		changed.Fire()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}

// Reconcile updates the anchors of all hosted domains, and returns the time of the next run.
func (c *Reconciler) Reconcile(ctx context.Context) (next time.Time, err error) {
	if !c.Clock.Sane() {
		return c.Clock.Now().Add(clock.CheckInterval), nil
	}
	domains, err := table.Domains.List(c.Store.View(), "")
	if err != nil {
		return plan.Never, err
	}
	var errs []error
	for _, domain := range domains {
		at, err := c.reconcileDomain(ctx, domain.Key)
		if err != nil {
			errs = append(errs, fmt.Errorf("anchors of %s: %w", domain.Key, err))
		}
		next = plan.Sooner(next, at)
	}
	return next, errors.Join(errs...)
}

// reconcileDomain updates the anchors of one domain, and returns the time of the next run.
func (c *Reconciler) reconcileDomain(ctx context.Context, td string) (time.Time, error) {
	view := c.Store.View()
	domain, ok, err := table.Domains.Get(view, td)
	if err != nil || !ok {
		return plan.Never, err
	}
	actions, next, err := c.Due(view, domain.Value, c.Clock.Now())
	if err != nil || len(actions) == 0 {
		return next, err
	}
	err = c.Journal.Change(ctx, td, func(tx *raftstore.Tx) ([]journal.Step, error) { return c.carryOut(tx, td) })
	if err != nil {
		return plan.Never, err
	}
	return c.Clock.Now().Add(checkInterval), nil
}

// Due returns what has to be done with the anchors of a domain's upstream, and when to check again.
func (c *Reconciler) Due(
	r raftstore.Reader, domain *statev1.Domain, now time.Time,
) (actions []plan.AnchorAction, next time.Time, err error) {
	s, err := c.situation(r, domain, now)
	if err != nil {
		return nil, plan.Never, err
	}
	actions, next = plan.Anchors(s)
	if len(actions) == 0 && !s.Leads && len(s.Known) != len(s.Listed) {
		next = plan.Sooner(next, s.Now.Add(checkInterval)) // this member may lead by then
	}
	return actions, next, nil
}

// carryOut evaluates the rules again inside the transaction, and carries out the actions.
func (c *Reconciler) carryOut(tx *raftstore.Tx, td string) ([]journal.Step, error) {
	domain, ok, err := table.Domains.Get(tx, td)
	if err != nil || !ok {
		return nil, err
	}
	now, err := c.Clock.Checked()
	if err != nil {
		return nil, err
	}
	actions, _, err := c.Due(tx, domain.Value, now)
	if err != nil {
		return nil, err
	}
	var steps []journal.Step
	for _, action := range actions {
		step, err := c.change(tx, domain.Value, action, now)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step)
	}
	return c.Publisher.Finish(tx, domain.Value, steps, now)
}

// Admit publishes an anchor that the upstream lists since a moment ago. It returns an error if nothing may be signed
// below the anchor.
func (c *Reconciler) Admit(ctx context.Context, td spiffeid.TrustDomain, anchor *x509.Certificate) error {
	revoked, err := table.RevokedSet(c.Store.View(), td.Name())
	if err != nil {
		return err
	}
	if revoked(anchor.Raw) {
		return fmt.Errorf(
			"the upstream signs below the anchor %s, which was revoked; make an issuer below another one its default",
			svid.AnchorID(anchor))
	}
	if c.Source == nil {
		return nil
	}
	if first, err := table.HasNoAnchor(c.Store.View(), td.Name()); err != nil || first {
		return err // it is published with the authority
	}
	if _, err := c.reconcileDomain(ctx, td.Name()); err != nil {
		return err
	}
	published, err := table.AnchorPublished(c.Store.View(), td.Name(), anchor.Raw)
	switch {
	case err != nil || published:
		return err
	case c.Approval:
		return fmt.Errorf(
			"the upstream signs below the new anchor %s (%s); if it is expected, run 'entente authority approve %s "+
				"--domain %s': %w",
			svid.AnchorID(anchor), anchor.Subject, svid.AnchorID(anchor), td.Name(), errUnapproved)
	}
	return fmt.Errorf("the upstream signs below the anchor %s (%s), which it does not list among its anchors",
		svid.AnchorID(anchor), anchor.Subject)
}

// Refused returns a function that reports whether signing below an anchor is refused: it was revoked, or it is not
// approved yet.
func (c *Reconciler) Refused(r raftstore.Reader, td string) (func(*x509.Certificate) bool, error) {
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
	return func(cert *x509.Certificate) bool {
		return revoked(cert.Raw) || (c.Approval && len(published) > 0 && !published[string(cert.Raw)])
	}, nil
}

// PublishFirst publishes the anchor of an authority with it if the domain has none yet, and returns that step. allowed
// is false if the authority must not be added: its anchor has left, or waits for approval.
func (c *Reconciler) PublishFirst(
	tx *raftstore.Tx, domain *statev1.Domain, row *statev1.Authority, now time.Time,
) (steps []journal.Step, allowed bool, err error) {
	if c.Source == nil || len(row.GetAnchors()) == 0 {
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
	action := plan.AnchorAction{
		Do: plan.PublishAnchor, ID: string(row.GetAnchors()[0]), Why: "the domain begins with it",
	}
	step, err := c.change(tx, domain, action, now)
	if err != nil {
		return nil, false, err
	}
	return []journal.Step{step}, true, nil
}
