package authority

import (
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// RemoveMember carries out [plan.ForRemoved] in every hosted domain, inside the transaction that strikes a member out, so that
// there is no moment at which a compromised member is gone and its keys are still trusted. Where this leaves a domain without
// an active authority, the other members begin one at once.
func (m *Manager) RemoveMember(tx *raftstore.Tx, member string, compromised bool) error {
	domains, err := table.Domains.List(tx, "")
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
		rows, err := table.ListAuthorities(tx, domain.Key)
		if err != nil {
			return err
		}
		all := make([]plan.Authority, len(rows))
		for i, row := range rows {
			all[i] = table.AuthorityOf(row)
		}
		actions := plan.ForRemoved(all, member, compromised)
		if _, err := m.carryOutAll(tx, domain.Value, actions, now); err != nil {
			return err
		}
	}
	return nil
}
