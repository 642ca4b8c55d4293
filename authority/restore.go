package authority

import (
	"context"
	"fmt"
	"strings"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// sequenceLeap is added to every sequence at a restore. The sequences that a lost cluster published after its snapshot
// are unknown, but no bundle changes a million times between two snapshots.
const sequenceLeap = 1 << 20

// restorer decides what the restore of a snapshot leaves of the authorities.
type restorer struct {
	publisher *publish.Publisher
	clockSane func() bool
	now       func() time.Time
}

// surviveRestore adjusts the restored tables inside the transaction of the restore.
//
// What verifies live SVIDs must not leave the bundle, and a key that no member holds must not sign. A domain that is
// hosted now keeps its current authorities: the members have those keys, and everything else in the snapshot has ended.
// In a domain that only the snapshot has, or in a new cluster that takes over another one's snapshot, no member holds
// the keys of the snapshot. Those authorities are retired, and stay published while something that they signed can be
// alive.
func (s restorer) surviveRestore(before, restored *raftstore.View, tx *raftstore.Tx) error {
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
		if err := s.restoreDomain(before, restored, tx, domain.Value, past[domain.Key]+sequenceLeap); err != nil {
			return err
		}
		delete(past, domain.Key)
		if err := table.PastSequences.Delete(tx, domain.Key); err != nil {
			return err
		}
	}
	for td, sequence := range past { // hosted once, but not after the restore
		row := &statev1.PastSequence{TrustDomain: td, Sequence: sequence + sequenceLeap}
		if err := table.PastSequences.Put(tx, td, row); err != nil {
			return err
		}
	}
	return nil
}

// restoreDomain adjusts the restored rows of a domain, and publishes its bundle with the sequence.
func (s restorer) restoreDomain(
	before, restored *raftstore.View, tx *raftstore.Tx, domain *statev1.Domain, sequence uint64,
) error {
	td := domain.GetTrustDomain()
	hosted, err := table.Hosts(before, td)
	if err != nil {
		return err
	}
	if hosted && before.ClusterID() == restored.ClusterID() {
		if err = dropAll(restored, tx, td); err == nil {
			err = publish.KeepHistory(before, tx, td)
		}
		if err == nil {
			err = table.KeepUpstreamAnchors(before, tx, td)
		}
	} else if err = table.DropAllSuccessors(tx, td); err == nil { // no member has their keys
		err = s.retireAll(restored, tx, td)
	}
	if err != nil {
		return err
	}
	if err := keepAuthorities(before, tx, td); err != nil {
		return err
	}
	if err := keepRotations(before, restored, tx, td); err != nil {
		return err
	}
	return s.publisher.Republish(tx, domain, sequence, s.now())
}

// lastSequences returns the highest sequence of each trust domain in any of the states.
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

// RaiseSequences publishes each hosted bundle with a sequence below the floor again, with the floor as its sequence. It
// also raises the stored sequences of domains that were hosted before. A second call with the same floor changes
// nothing.
func (m *Manager) RaiseSequences(ctx context.Context, floor uint64) error {
	store := m.config.Store
	domains, err := table.Domains.List(store.View(), "")
	if err != nil {
		return err
	}
	for _, domain := range domains {
		_, err := store.Update(ctx, func(tx *raftstore.Tx) error {
			domain, hosted, err := table.Domains.Get(tx, domain.Key)
			if err != nil || !hosted {
				return err
			}
			last, err := publish.LastSequence(tx, domain.Key)
			if err != nil || last >= floor {
				return err
			}
			return m.executor.publisher.Republish(tx, domain.Value, floor, m.config.Now())
		})
		if err != nil {
			return fmt.Errorf("raise the sequence of the bundle of %s to %d: %w", domain.Key, floor, err)
		}
	}
	_, err = store.Update(ctx, func(tx *raftstore.Tx) error {
		past, err := table.PastSequences.List(tx, "")
		if err != nil {
			return err
		}
		for _, row := range past {
			row.Value.Sequence = max(row.Value.GetSequence(), floor)
			if err := table.PastSequences.Put(tx, row.Key, row.Value); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// HighestSequence returns the highest sequence that any hosted bundle has or had.
func HighestSequence(r raftstore.Reader) (highest uint64, err error) {
	last, err := lastSequences(r)
	for _, sequence := range last {
		highest = max(highest, sequence)
	}
	return highest, err
}

// dropAll deletes a domain's restored authorities.
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

// keepAuthorities writes a domain's authorities as they were before.
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

// retireAll retires a domain's restored authorities, and taints or revokes those that were tainted or revoked since the
// snapshot. Those that never signed or have expired are deleted: their keys need not be published.
func (s restorer) retireAll(restored *raftstore.View, tx *raftstore.Tx, td string) error {
	rows, err := table.ListAuthorities(restored, td)
	if err != nil {
		return err
	}
	now := s.now()
	for _, row := range rows {
		a := table.AuthorityOf(row)
		if a.State == plan.Prepared || (s.clockSane() && !now.Before(a.NotAfter.Add(plan.ClockTolerance))) {
			if err := table.Authorities.Delete(tx, table.AuthorityKey(td, a.ID)); err != nil {
				return err
			}
			continue
		}
		verb, err := table.RestoredVerb(tx, td, row)
		if err != nil {
			return err
		}
		if verb == plan.Retire && a.State != plan.Active || verb == plan.Taint && a.State.Distrusted() ||
			verb == plan.Revoke && a.State == plan.Revoked {
			continue
		}
		if err := table.Apply(tx, td, plan.Action{Do: verb, ID: a.ID}, plan.Settings{}, now); err != nil {
			return err
		}
	}
	return nil
}

// keepRotations keeps the request counts of a domain from going down, since authorities are compared with them.
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
		TrustDomain: td, Rotation: max(was.Last, now.Last), AnchorRotation: max(was.Anchors, now.Anchors),
		Reserve: max(was.Reserve, now.Reserve),
	})
}

// founded reports whether a new cluster writes a row by itself: the home domain and what belongs to it.
func (m *Manager) founded(_ *raftstore.View, tableName, key string) bool {
	home := m.config.Home.Name()
	switch tableName {
	case table.Domains.Name(), table.HostedBundles.Name():
		return key == home
	case table.Authorities.Name(),
		table.UpstreamAnchors.Name(),
		table.HostedHistory.Name(),
		table.HostedHistoryKeys.Name():
		return strings.HasPrefix(key, table.DomainPrefix(home))
	}
	return false
}
