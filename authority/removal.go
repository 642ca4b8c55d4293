package authority

import (
	"github.com/ententehq/entente/raftstore"
)

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
