package authority

import (
	"strings"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// sequenceLeap is added to every sequence at a restore: those that were handed out after the snapshot was taken, by a
// cluster that is gone, are not known, but nobody changes a bundle a million times between two snapshots.
const sequenceLeap = 1 << 20

// surviveRestore decides what an operator's restore leaves of the authorities.
//
// What verifies SVIDs that are alive must not leave the bundle, and what nobody has the key of must not sign. In a
// domain that is hosted now, what is there now is the truth: the members have those keys, and what the snapshot holds
// besides had its end. In a domain that comes with the snapshot alone, or in a new cluster that takes over another's
// snapshot, nobody holds the snapshot's keys any more, so those authorities are retired, and stay published for as long
// as something that they signed may be alive.
func (m *Manager) surviveRestore(before, restored *raftstore.View, tx *raftstore.Tx) error {
	if err := table.KeepRevokedAnchors(before, tx); err != nil {
		return err
	}
	if err := table.KeepDistrusted(before, tx); err != nil {
		return err
	}
	past, err := lastSequences(before, restored)
	if err != nil {
		return err
	}
	domains, err := table.Domains.List(restored, "")
	if err != nil {
		return err
	}
	for _, domain := range domains {
		hosted, err := table.Hosts(before, domain.Key)
		if err != nil {
			return err
		}
		if hosted && before.ClusterID() == restored.ClusterID() {
			if err = dropAll(restored, tx, domain.Key); err == nil {
				err = keepHistory(before, tx, domain.Key)
			}
			if err == nil {
				err = table.KeepUpstreamAnchors(before, tx, domain.Key)
			}
		} else {
			err = m.retireAll(restored, tx, domain.Key)
		}
		if err == nil {
			err = keepAuthorities(before, tx, domain.Key)
		}
		if err != nil {
			return err
		}
		if err := keepRotations(before, restored, tx, domain.Key); err != nil {
			return err
		}
		if err := m.republish(tx, domain.Value, past[domain.Key]+sequenceLeap); err != nil {
			return err
		}
		delete(past, domain.Key)
		if err := table.PastSequences.Delete(tx, domain.Key); err != nil {
			return err
		}
	}
	for td, sequence := range past { // hosted once, and not after the restore
		if err := table.PastSequences.Put(tx, td, &statev1.PastSequence{TrustDomain: td, Sequence: sequence + sequenceLeap}); err != nil {
			return err
		}
	}
	return nil
}

// lastSequences are the highest sequences that either state knows of, by trust domain.
func lastSequences(states ...raftstore.Reader) (map[string]uint64, error) {
	last := map[string]uint64{}
	for _, r := range states {
		for row, err := range table.PastSequences.All(r, "") {
			if err != nil {
				return nil, err
			}
			last[row.Key] = max(last[row.Key], row.Value.GetSequence())
		}
		for row, err := range table.HostedBundles.All(r, "") {
			if err != nil {
				return nil, err
			}
			b, err := trust.Parse(row.Value)
			if err != nil {
				return nil, err
			}
			sequence, _ := b.Sequence()
			last[row.Key] = max(last[row.Key], sequence)
		}
	}
	return last, nil
}

// dropAll leaves out a domain's restored authorities.
func dropAll(restored *raftstore.View, tx *raftstore.Tx, td string) error {
	rows, err := table.ListAuthorities(restored, td)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := table.Authorities.Delete(tx, table.AuthorityKey(td, row.GetId())); err != nil {
			return err
		}
	}
	return nil
}

// keepAuthorities keeps a domain's authorities as they were before.
func keepAuthorities(before *raftstore.View, tx *raftstore.Tx, td string) error {
	rows, err := table.ListAuthorities(before, td)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := table.Authorities.Put(tx, table.AuthorityKey(td, row.GetId()), row); err != nil {
			return err
		}
	}
	return nil
}

// retireAll retires a domain's restored authorities, and taints or revokes those that were since. Those that never signed, and
// those that have expired, are left out: their keys need not be published for a moment.
func (m *Manager) retireAll(restored *raftstore.View, tx *raftstore.Tx, td string) error {
	rows, err := table.ListAuthorities(restored, td)
	if err != nil {
		return err
	}
	now := m.config.Now()
	for _, row := range rows {
		a := table.AuthorityOf(row)
		if a.State == plan.Prepared || (m.config.Contact.ClockSane() && !now.Before(a.NotAfter.Add(plan.ClockTolerance))) {
			if err := table.Authorities.Delete(tx, table.AuthorityKey(td, a.ID)); err != nil {
				return err
			}
			continue
		}
		verb, err := table.RestoredVerb(tx, td, row)
		if err != nil {
			return err
		}
		if verb == plan.Retire && a.State != plan.Active || verb == plan.Taint && a.State.Distrusted() || verb == plan.Revoke && a.State == plan.Revoked {
			continue
		}
		if err := table.Apply(tx, td, plan.Action{Do: verb, ID: a.ID}, plan.Settings{}, now); err != nil {
			return err
		}
	}
	return nil
}

// keepRotations keeps the counts of rotations from going down, since authorities are held against them.
func keepRotations(before, restored *raftstore.View, tx *raftstore.Tx, td string) error {
	was, err := table.RotationsOf(before, td)
	if err != nil {
		return err
	}
	now, err := table.RotationsOf(restored, td)
	if err != nil || (was.Last <= now.Last && was.Anchors <= now.Anchors && was.Reserve <= now.Reserve) {
		return err
	}
	return table.Rotations.Put(tx, td, &statev1.Rotation{
		TrustDomain: td, Rotation: max(was.Last, now.Last), AnchorRotation: max(was.Anchors, now.Anchors), Reserve: max(was.Reserve, now.Reserve),
	})
}

// republish writes the domain's bundle anew with the sequence.
func (m *Manager) republish(tx *raftstore.Tx, domain *statev1.Domain, sequence uint64) error {
	td, err := bundle.ParseTrustDomain(domain.GetTrustDomain())
	if err != nil {
		return err
	}
	rows, err := table.ListAuthorities(tx, td.Name())
	if err != nil {
		return err
	}
	revoked, err := table.RevokedSet(tx, td.Name())
	if err != nil {
		return err
	}
	published, err := table.PublishedAnchors(tx, td.Name())
	if err != nil {
		return err
	}
	content, err := contentOf(rows, published, revoked)
	if err != nil {
		return err
	}
	hint := table.SettingsOf(domain).RefreshHint
	content.Sequence, content.RefreshHint = &sequence, &hint
	b, err := bundle.New(td, content)
	if err != nil {
		return err
	}
	return m.putBundle(tx, b, m.config.Now())
}

// founded says whether a row is one that a new cluster writes by itself: the home domain, and what belongs to it.
func (m *Manager) founded(_ *raftstore.View, tableName, key string) bool {
	home := m.config.Home.Name()
	switch tableName {
	case table.Domains.Name(), table.HostedBundles.Name():
		return key == home
	case table.Authorities.Name(), table.UpstreamAnchors.Name(), HostedHistory.Name(), hostedHistoryKeys.Name():
		return strings.HasPrefix(key, table.DomainPrefix(home))
	}
	return false
}
