package authority

import (
	"context"
	"strings"
	"time"

	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
)

// orphanAge is how long a key that no authority was ever seen for is kept: a transaction whose outcome was not known
// when the member stopped can still bring its authority to light.
const orphanAge = 10 * time.Minute

// sweeper deletes the keys of authorities that are gone. It belongs to the goroutine that waits for the upstream.
type sweeper struct {
	// known are the authorities of this member that have been seen in the tables.
	known map[string]bool
	// orphans are keys without an authority, and since when.
	orphans map[string]time.Time
	// pruned is the revision of the authorities at which the upstream was last told what is in use.
	pruned raftstore.Revision
}

// sweep deletes the keys of authorities that are gone, and says when to look again. What it holds against the folder is
// a linearizable read: this member's own state may still lack an authority whose key it made before a restart.
func (m *Manager) sweep(ctx context.Context) (next time.Time, err error) {
	s := &m.sweeper
	if s.known == nil {
		s.known, s.orphans = map[string]bool{}, map[string]time.Time{}
	}
	revision := table.Authorities.PrefixRevision(m.config.Store.View(), "")
	if made := m.unswept.Swap(false); !made && revision == s.pruned && len(s.orphans) == 0 {
		return plan.Never, nil
	}
	view, err := m.config.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return plan.Never, err
	}
	inUse, ids, err := m.inUse(view)
	if err != nil {
		return plan.Never, err
	}
	names, err := m.keys.Names(ctx)
	if err != nil {
		return plan.Never, err
	}
	now := m.config.Now()
	orphans := map[string]time.Time{}
	for _, name := range names {
		if strings.HasPrefix(name, upstream.RootPrefix) {
			continue // the upstream's
		}
		if ids[name] {
			s.known[name] = true
			continue
		}
		since, ok := s.orphans[name]
		if !ok {
			since = now
		}
		if due := since.Add(orphanAge); !s.known[name] && now.Before(due) {
			orphans[name], next = since, plan.Sooner(next, due)
			continue
		}
		if err := m.keys.Delete(ctx, name); err != nil {
			return plan.Never, err
		}
		delete(s.known, name)
		m.log.Info("deleted the key of an authority that is gone", "id", name)
	}
	if err := m.upstream.Prune(inUse); err != nil {
		return plan.Never, err
	}
	s.orphans, s.pruned = orphans, table.Authorities.PrefixRevision(view, "")
	return next, nil
}
