package authority

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// errClock ends a transaction before it acts by a clock that is wrong.
var errClock = errors.New("this member's clock is not known to be that of the others; nothing was changed")

// saneNow is the time, if this member's clock can be gone by. It is read before the clock is asked after: one that is set in
// between has told a time that was right, or is found out.
func (m *Manager) saneNow() (time.Time, error) {
	now := m.config.Now()
	if !m.config.Contact.ClockSane() {
		return plan.Never, errClock
	}
	return now, nil
}

// candidate is an authority that was made for a Prepare, and is not in the tables yet.
type candidate struct {
	row       *statev1.Authority
	newAnchor bool
	// made is when that was, by this member's clock, which its dates follow.
	made time.Time
}

// done is an action that was carried out.
type done struct {
	plan.Action
	// anchor is what the action was carried out on, where it was no authority.
	anchor *x509.Certificate
	// Sequence is that of the bundle which the transaction published, 0 if none.
	Sequence uint64
	// inherits says that what verifies a prepared authority was published with an earlier one.
	inherits bool
}

// situation reads what decides the member's next step with a domain.
func (m *Manager) situation(r raftstore.Reader, domain *statev1.Domain, now time.Time) (plan.Situation, []*statev1.Authority, error) {
	td := domain.GetTrustDomain()
	rows, err := table.ListAuthorities(r, td)
	if err != nil {
		return plan.Situation{}, nil, err
	}
	asked, err := table.RotationsOf(r, td)
	if err != nil {
		return plan.Situation{}, nil, err
	}
	s := plan.Situation{
		Now: now, Member: m.config.Member, Settings: table.SettingsOf(domain), Grace: m.config.SigningGrace, Rotations: asked,
		Keyless: func(id string) bool {
			_, err := m.keys.Signer(id)
			return err != nil
		},
	}
	for _, row := range rows {
		s.Authorities = append(s.Authorities, table.AuthorityOf(row))
	}
	return s, rows, nil
}

// carryOut plans anew inside the transaction and carries the plan out, as far as there are candidates for what it
// wants prepared.
func (m *Manager) carryOut(tx *raftstore.Tx, td string, candidates map[plan.Kind]candidate, peers *plan.Peers) ([]done, error) {
	domain, ok, err := table.Domains.Get(tx, td)
	if err != nil || !ok {
		return nil, err // no row: the domain was deleted, and its authorities with it
	}
	now, err := m.saneNow() // the clock can have been set while the transaction was on its way
	if err != nil {
		return nil, err
	}
	s, rows, err := m.situation(tx, domain.Value, now)
	if err != nil {
		return nil, err
	}
	if s.Peers = peers; peers == nil && m.config.Acknowledgements != nil {
		s.Peers = &plan.Peers{} // nobody was asked, for nothing was ready then; what is by now waits for the next look
	}
	actions, _ := plan.Next(s)
	var carried []done
	for _, action := range actions {
		inherits := false
		if action.Do == plan.Prepare {
			made, ok := candidates[action.Kind]
			if !ok || (action.NewAnchor && !made.newAnchor) {
				continue
			}
			if now.Sub(made.made).Abs() > plan.ClockTolerance {
				continue // the clock was set since, and it would begin in a day, or have ended; the next round makes another
			}
			action.ID = made.row.GetId()
			if revoked, err := table.BelowRevoked(tx, td, made.row); err != nil {
				return nil, err
			} else if revoked {
				continue // it was revoked while this was signed; the next round asks for another
			}
			brought, may, err := m.bringAnchor(tx, domain.Value, made.row, now)
			if err != nil {
				return nil, err
			}
			if !may {
				continue // its anchor left while this was signed
			}
			carried = append(carried, brought...)
			row := table.Complete(made.row, rows, s, action, made.newAnchor)
			inherits = slices.ContainsFunc(rows, func(other *statev1.Authority) bool { return table.SameAnchor(row, other) })
			if fed, err := table.InheritAnchor(tx, td, row); err != nil {
				return nil, err
			} else if fed && len(brought) == 0 {
				inherits = true
			}
			if err := table.Authorities.Put(tx, table.AuthorityKey(td, row.GetId()), row); err != nil {
				return nil, err
			}
		} else if err := table.Apply(tx, td, action, s.Settings, now); err != nil {
			return nil, err
		}
		carried = append(carried, done{Action: action, inherits: inherits})
	}
	if carried, err = m.finish(tx, domain.Value, carried, now); err != nil {
		return nil, err
	}
	if err := publishedWith(tx, td, carried); err != nil {
		return nil, err
	}
	return carried, published(tx, td, carried)
}

// carryOutLost does for the leader what carryOut does for a member's own authorities.
func (m *Manager) carryOutLost(tx *raftstore.Tx, td string) ([]done, error) {
	domain, ok, err := table.Domains.Get(tx, td)
	if err != nil || !ok {
		return nil, err
	}
	now, err := m.saneNow()
	if err != nil {
		return nil, err
	}
	actions, _, err := m.planForLost(tx, domain.Value, now)
	if err != nil {
		return nil, err
	}
	return m.carryOutAll(tx, domain.Value, actions, now)
}

// carryOutAll carries out actions of which none prepares an authority, and publishes what they changed.
func (m *Manager) carryOutAll(tx *raftstore.Tx, domain *statev1.Domain, actions []plan.Action, now time.Time) ([]done, error) {
	var carried []done
	for _, action := range actions {
		if err := table.Apply(tx, domain.GetTrustDomain(), action, table.SettingsOf(domain), now); err != nil {
			return nil, err
		}
		carried = append(carried, done{Action: action})
	}
	return m.finish(tx, domain, carried, now)
}

func (m *Manager) planForLost(r raftstore.Reader, domain *statev1.Domain, now time.Time) ([]plan.Action, time.Time, error) {
	rows, err := table.ListAuthorities(r, domain.GetTrustDomain())
	if err != nil {
		return nil, plan.Never, err
	}
	members, err := m.config.Members(r)
	if err != nil {
		return nil, plan.Never, fmt.Errorf("list the members: %w", err)
	}
	all := make([]plan.Authority, len(rows))
	for i, row := range rows {
		all[i] = table.AuthorityOf(row)
	}
	actions, next := plan.ForLost(now, all, members, m.config.SigningGrace)
	return actions, next, nil
}

// finish publishes what the actions changed.
func (m *Manager) finish(tx *raftstore.Tx, domain *statev1.Domain, carried []done, now time.Time) ([]done, error) {
	if len(carried) == 0 {
		return nil, nil
	}
	sequence, err := m.publish(tx, domain, now)
	if err != nil {
		return nil, err
	}
	for i := range carried {
		carried[i].Sequence = sequence
	}
	return carried, nil
}
