package authority

import (
	"github.com/ententehq/entente/raftstore"
)

// PlanForRemoved says what becomes of the authorities of a member that is struck out. They retire: what they signed goes on
// to verify until it expires. Those of a compromised member are revoked, and with them everything that they signed.
func PlanForRemoved(authorities []Authority, member string, compromised bool) (actions []Action) {
	for _, a := range authorities {
		if a.Member != member {
			continue
		}
		action := Action{Kind: a.Kind, ID: a.ID}
		switch {
		case compromised:
			if a.State == Revoked {
				continue
			}
			action.Do, action.Why = Revoke, "its member was removed as compromised"
		case a.State == Prepared:
			action.Do, action.Why = End, "its member was removed, and it never signed"
		case a.State == Active:
			action.Do, action.Why = Retire, "its member was removed"
		default:
			continue
		}
		actions = append(actions, action)
	}
	return actions
}

// RemoveMember carries out [PlanForRemoved] in every hosted domain, inside the transaction that strikes a member out, so that
// there is no moment at which a compromised member is gone and its keys are still trusted. Where this leaves a domain without
// an active authority, the other members begin one at once.
func (m *Manager) RemoveMember(tx *raftstore.Tx, member string, compromised bool) error {
	domains, err := Domains.List(tx, "")
	if err != nil {
		return err
	}
	now, err := m.saneNow()
	switch {
	case err != nil && !compromised:
		return err // what retires by a wrong clock leaves the bundle too early
	case err != nil:
		now = m.config.Now() // what is revoked leaves it at once
	}
	for _, domain := range domains {
		rows, err := listAuthorities(tx, domain.Key)
		if err != nil {
			return err
		}
		all := make([]Authority, len(rows))
		for i, row := range rows {
			all[i] = authorityOf(row)
		}
		actions := PlanForRemoved(all, member, compromised)
		if _, err := m.carryOutAll(tx, domain.Value, actions, now); err != nil {
			return err
		}
	}
	return nil
}
