package authority

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
)

// succeed makes, publishes or drops the successor of this member's root in a domain, as [plan.Succession] decides, and
// returns the time of the next run.
func (p *preparer) succeed(ctx context.Context, td string) (time.Time, error) {
	hasKey, err := p.rootKeys(ctx, td)
	if err != nil {
		return plan.Never, err
	}
	view := p.config.Store.View()
	domain, ok, err := table.Domains.Get(view, td)
	if err != nil || !ok {
		return plan.Never, err
	}
	s, err := p.executor.succession(view, domain.Value, hasKey, p.config.Now())
	if err != nil {
		return plan.Never, err
	}
	do, _, next := s.Next()
	if do == "" || (do == plan.PublishAnchor && p.roots == nil) {
		return next, nil
	}
	return plan.Never, p.journal.Around(td, func(commit func(context.Context, journal.Transaction) error) error {
		var made *x509.Certificate
		if do == plan.PublishAnchor {
			p.unswept.Store(true)
			if made, err = p.makeRoot(ctx, domain.Value, s.Now); err != nil {
				return err
			}
		}
		defer p.changed.Fire()
		return commit(ctx, func(tx *raftstore.Tx) ([]journal.Step, error) {
			return p.executor.carryOutSuccession(tx, td, hasKey, made)
		})
	})
}

// rootKeys returns a function that reports whether this member has the key of a root of a domain.
func (p *preparer) rootKeys(ctx context.Context, td string) (func(der []byte) bool, error) {
	has := map[string]bool{}
	if p.roots != nil {
		name, err := spiffeid.TrustDomainFromString(td)
		if err != nil {
			return nil, err
		}
		roots, err := p.roots.Roots(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, c := range roots {
			has[string(c.Raw)] = true
		}
	}
	return func(der []byte) bool { return has[string(der)] }, nil
}

// makeRoot makes the successor of this member's root.
func (p *preparer) makeRoot(ctx context.Context, domain *statev1.Domain, now time.Time) (*x509.Certificate, error) {
	td, err := spiffeid.TrustDomainFromString(domain.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	return p.roots.MakeRoot(ctx, upstream.Request{
		TrustDomain: td, Now: now, NameConstraints: domain.GetNameConstraints(),
	})
}

// succession reads the input of [plan.Succession.Next] for a domain.
func (e *executor) succession(
	r raftstore.Reader, domain *statev1.Domain, hasKey func(der []byte) bool, now time.Time,
) (plan.Succession, error) {
	s, rows, err := e.situation(r, domain, now)
	if err != nil {
		return plan.Succession{}, err
	}
	succession, err := table.SuccessionOf(r, domain.GetTrustDomain(), s, rows, hasKey)
	succession.Ends = succession.Ends || s.Older // which would take the row for an anchor of an upstream
	return succession, err
}

// carryOutSuccession evaluates the rule again, and carries out what it requires. made is the root that was made for it,
// or nil.
func (e *executor) carryOutSuccession(
	tx *raftstore.Tx, td string, hasKey func(der []byte) bool, made *x509.Certificate,
) ([]journal.Step, error) {
	domain, ok, err := table.Domains.Get(tx, td)
	if err != nil || !ok {
		return nil, err
	}
	now, err := e.clock.Checked()
	if err != nil {
		return nil, err
	}
	s, err := e.succession(tx, domain.Value, hasKey, now)
	if err != nil {
		return nil, err
	}
	do, why, _ := s.Next()
	var steps []journal.Step
	switch {
	case do == plan.PublishAnchor && made != nil:
		err = table.PutSuccessor(tx, domain.Value, e.member, made, now)
		steps = []journal.Step{succeeding(do, made, why)}
	case do == plan.DropAnchor:
		var dropped []table.Successor
		dropped, err = table.DropSuccessors(tx, td, e.member, false, now)
		steps = stepsOf(dropped, why)
	}
	if err != nil {
		return nil, err
	}
	return e.publisher.Finish(tx, domain.Value, steps, now)
}

// endSuccession ends the succession of this member's root when an authority begins below a root: either it is the
// successor that takes over, or a new one, which gets a successor of its own. Below a root that other authorities are
// below already, nothing changes.
func (e *executor) endSuccession(
	tx *raftstore.Tx, td string, row *statev1.Authority, before []*statev1.Authority, now time.Time,
) ([]journal.Step, error) {
	if len(row.GetAnchors()) == 0 || row.GetUpstreamAnchor() {
		return nil, nil
	}
	for _, other := range before {
		if table.SameAnchor(row, other) {
			return nil, nil
		}
	}
	ended, err := table.DropSuccessors(tx, td, e.member, false, now)
	var steps []journal.Step
	for _, s := range ended {
		if string(s.Certificate.Raw) != string(row.GetAnchors()[0]) {
			steps = append(steps, succeeding(plan.DropAnchor, s.Certificate, "its member signs below a newer root"))
		}
	}
	return steps, err
}

// succeeding returns the step of an action on the successor of a root.
func succeeding(do plan.AnchorVerb, c *x509.Certificate, why string) journal.Step {
	return journal.Step{
		Action: plan.Action{Do: plan.Verb(do), Kind: plan.X509, ID: svid.AnchorID(c), Why: why}, Anchor: c,
	}
}

// stepsOf returns the steps of successors that were dropped for the same reason.
func stepsOf(dropped []table.Successor, why string) (steps []journal.Step) {
	for _, s := range dropped {
		steps = append(steps, succeeding(plan.DropAnchor, s.Certificate, why))
	}
	return steps
}
