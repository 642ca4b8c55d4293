package authority

import (
	"fmt"
	"slices"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/anchor"
	"github.com/ententehq/entente/authority/internal/clock"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// candidate is an authority that was made for a Prepare action and is not in the tables yet.
type candidate struct {
	row       *statev1.Authority
	newAnchor bool
	// made is the time of this member's clock that its dates are based on.
	made time.Time
}

// executor carries out plans inside transactions. It evaluates the rules again there, so that a decision always agrees
// with the rows that it changes. Its methods can be called from any goroutine.
type executor struct {
	member    string
	grace     time.Duration
	keys      keys.Store
	members   func(raftstore.Reader) ([]string, error)
	clock     clock.Clock
	anchors   *anchor.Reconciler
	publisher *publish.Publisher
	// waitsForPeers is true if activations wait for acknowledgements of peers.
	waitsForPeers bool
}

// situation reads the input of [plan.Next] for a domain, and returns the rows of its authorities.
func (e *executor) situation(
	r raftstore.Reader, domain *statev1.Domain, now time.Time,
) (plan.Situation, []*statev1.Authority, error) {
	td := domain.GetTrustDomain()
	rows, err := table.ListAuthorities(r, td)
	if err != nil {
		return plan.Situation{}, nil, err
	}
	rotations, err := table.RotationsOf(r, td)
	if err != nil {
		return plan.Situation{}, nil, err
	}
	version, _, err := membership.LowestCommandVersion(r)
	if err != nil {
		return plan.Situation{}, nil, err
	}
	return plan.Situation{
		Now: now, Member: e.member, Settings: table.SettingsOf(domain), Grace: e.grace, Rotations: rotations,
		Authorities: table.AuthoritiesOf(rows), Older: version < raftstore.SuccessorsVersion,
		Keyless: func(id string) bool {
			_, err := e.keys.Signer(id)
			return err != nil
		},
	}, rows, nil
}

// carryOut carries out what is due for this member's authorities of a domain. Of what has to be prepared it carries out
// what there are candidates for. peers is nil if they were not read.
func (e *executor) carryOut(
	tx *raftstore.Tx, td string, candidates map[plan.Kind]candidate, peers *plan.Peers,
) ([]journal.Step, error) {
	domain, ok, err := table.Domains.Get(tx, td)
	if err != nil || !ok {
		return nil, err // without a row the domain was deleted with its authorities
	}
	now, err := e.clock.Checked() // the clock can have been set while the transaction was on its way
	if err != nil {
		return nil, err
	}
	s, rows, err := e.situation(tx, domain.Value, now)
	if err != nil {
		return nil, err
	}
	if s.Peers = peers; peers == nil && e.waitsForPeers {
		s.Peers = &plan.Peers{} // nothing was ready when they were read; what is ready now waits for the next round
	}
	actions, _ := plan.Next(s)
	var steps []journal.Step
	for _, action := range actions {
		if action.Do != plan.Prepare {
			if err := table.Apply(tx, td, action, s.Settings, now); err != nil {
				return nil, err
			}
			steps = append(steps, journal.Step{Action: action})
			continue
		}
		made, ok := candidates[action.Kind]
		if !ok || (action.NewAnchor && !made.newAnchor) {
			continue
		}
		prepared, err := e.addCandidate(tx, domain.Value, made, rows, s, action)
		if err != nil {
			return nil, err
		}
		steps = append(steps, prepared...)
	}
	return e.publisher.Finish(tx, domain.Value, steps, now)
}

// addCandidate adds a prepared authority, and its anchor if the domain has none yet. It returns no steps if the
// candidate is obsolete; the next round then makes another one.
func (e *executor) addCandidate(
	tx *raftstore.Tx, domain *statev1.Domain, made candidate, rows []*statev1.Authority, s plan.Situation,
	action plan.Action,
) ([]journal.Step, error) {
	td := domain.GetTrustDomain()
	if s.Now.Sub(made.made).Abs() > plan.ClockTolerance {
		return nil, nil // the clock was set since: it would begin much later, or has already ended
	}
	if revoked, err := table.BelowRevoked(tx, td, made.row); err != nil || revoked {
		return nil, err // its anchor was revoked while it was signed
	}
	steps, allowed, err := e.anchors.PublishFirst(tx, domain, made.row, s.Now)
	if err != nil || !allowed {
		return nil, err // its anchor left while it was signed
	}
	row := table.Complete(made.row, rows, s, action, made.newAnchor)
	inherits := slices.ContainsFunc(rows, func(other *statev1.Authority) bool { return table.SameAnchor(row, other) })
	if published, err := table.InheritAnchor(tx, td, row); err != nil {
		return nil, err
	} else if published && len(steps) == 0 {
		inherits = true
	}
	if err := table.Authorities.Put(tx, table.AuthorityKey(td, row.GetId()), row); err != nil {
		return nil, err
	}
	ended, err := e.endSuccession(tx, td, row, rows, s.Now)
	if err != nil {
		return nil, err
	}
	steps = append(steps, ended...)
	action.ID = row.GetId()
	return append(steps, journal.Step{Action: action, Inherits: inherits}), nil
}

// carryOutLost carries out what is due for the authorities of a domain whose member cannot act. The leader calls it.
func (e *executor) carryOutLost(tx *raftstore.Tx, td string) ([]journal.Step, error) {
	domain, ok, err := table.Domains.Get(tx, td)
	if err != nil || !ok {
		return nil, err
	}
	now, err := e.clock.Checked()
	if err != nil {
		return nil, err
	}
	actions, dropped, _, err := e.dueForLost(tx, domain.Value, now)
	if err != nil {
		return nil, err
	}
	for _, step := range dropped {
		if err := table.UpstreamAnchors.Delete(tx, table.AnchorKey(td, step.Anchor.Raw)); err != nil {
			return nil, err
		}
	}
	return e.apply(tx, domain.Value, actions, now, dropped...)
}

// apply carries out actions none of which prepares an authority, and publishes the result. steps were carried out
// before.
func (e *executor) apply(
	tx *raftstore.Tx, domain *statev1.Domain, actions []plan.Action, now time.Time, steps ...journal.Step,
) ([]journal.Step, error) {
	for _, action := range actions {
		if err := table.Apply(tx, domain.GetTrustDomain(), action, table.SettingsOf(domain), now); err != nil {
			return nil, err
		}
		steps = append(steps, journal.Step{Action: action})
	}
	return e.publisher.Finish(tx, domain, steps, now)
}

// dueForLost returns what the leader has to do for the authorities of a domain, which successors of roots it has to
// drop, and when to check again.
func (e *executor) dueForLost(
	r raftstore.Reader, domain *statev1.Domain, now time.Time,
) (actions []plan.Action, dropped []journal.Step, next time.Time, err error) {
	rows, err := table.ListAuthorities(r, domain.GetTrustDomain())
	if err != nil {
		return nil, nil, plan.Never, err
	}
	members, err := e.members(r)
	if err != nil {
		return nil, nil, plan.Never, fmt.Errorf("list the members: %w", err)
	}
	actions, next = plan.ForLost(now, table.AuthoritiesOf(rows), members, e.grace)
	successors, err := table.Successors(r, domain.GetTrustDomain())
	for _, x := range successors {
		why, at := plan.LostSuccessor(now, slices.Contains(members, x.Row.GetSuccessorOf()), x.Root())
		if why != "" {
			dropped = append(dropped, succeeding(plan.DropAnchor, x.Certificate, why))
		}
		next = plan.Sooner(next, at)
	}
	return actions, dropped, next, err
}

// removeMember carries out [plan.ForRemoved] in every hosted domain.
func (e *executor) removeMember(tx *raftstore.Tx, member string, compromised bool) error {
	domains, err := table.Domains.List(tx, "")
	if err != nil {
		return err
	}
	now, err := e.clock.Checked()
	switch {
	case err != nil && !compromised:
		return err // what retires by a wrong clock leaves the bundle too early
	case err != nil:
		now = e.clock.Now() // what is revoked leaves at once
	}
	for _, domain := range domains {
		rows, err := table.ListAuthorities(tx, domain.Key)
		if err != nil {
			return err
		}
		actions := plan.ForRemoved(table.AuthoritiesOf(rows), member, compromised)
		dropped, err := table.DropSuccessors(tx, domain.Key, member, compromised, now)
		if err != nil {
			return err
		}
		steps := stepsOf(dropped, "its member was removed")
		if _, err := e.apply(tx, domain.Value, actions, now, steps...); err != nil {
			return err
		}
	}
	return nil
}
