package federation

import (
	"context"
	"fmt"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

const actionAlarm = "raise alarm"

// announce tells log, metrics and the audit log of alarms that were raised.
func (m *Manager) announce(name string, raised []relationship.Alarm, revision raftstore.Revision) {
	for _, a := range raised {
		m.metrics.alarms.WithLabelValues(a.Name).Inc()
		m.log.Error("what a domain shows contradicts itself; ask its operators, and see 'entente federation show' and 'entente bundle history'",
			"trust_domain", name, "alarm", a.Name, "sequence", a.Sequence, "detail", relationship.Clip(a.Detail))
		m.record(actionAlarm, name, a.Name, relationship.Clip(fmt.Sprintf("sequence %d: %s", a.Sequence, a.Detail)), revision)
	}
}

// compareViews holds what a source shows against what was shown before under the same sequence, whoever showed it, and raises
// [AlarmSplitView] where they differ. It is for every source: an endpoint, a stream, a hub. What is stored is compared in the transaction
// that stores it, by [Manager.put] and [Manager.writeWord]; this is for what is not. The error says that the alarm could not be written.
func (m *Manager) compareViews(ctx context.Context, name string, view statement.View) error {
	if split, err := relationship.Contradicts(m.config.Store.View(), name, view); err != nil || split == nil {
		return err
	}
	var raised []relationship.Alarm
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		raised = nil
		row, found, err := relationship.Relationships.Get(tx, name)
		if err != nil || !found {
			return err
		}
		raised, err = relationship.RaiseSplit(tx, row, view, m.now())
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			m.log.Warn("an alarm was not written; it is raised again at the next look", "trust_domain", name, "alarm", relationship.AlarmSplitView, "error", err)
		}
		return err
	}
	m.announce(name, raised, revision)
	return nil
}

// compareShown does so for a bundle that was refused, which a source showed all the same.
func (m *Manager) compareShown(ctx context.Context, name string, b *bundle.Bundle, source string) error {
	return m.compareViews(ctx, name, statement.ViewOf(b, source))
}

// compareWithHubs holds what a new relationship began with against what hubs say of its domain.
func (m *Manager) compareWithHubs(ctx context.Context, name string) {
	view := m.config.Store.View()
	h, err := relationship.HistoryOf(view, name)
	newest := relationship.NewestVersion(h)
	if err != nil || newest == nil || newest.Sequence == nil {
		return
	}
	began, _ := relationship.Shown(h, newest.GetSequence())
	if alarms, err := relationship.AgainstHubs(view, name, began); err == nil && len(alarms) > 0 {
		m.raiseAlarm(ctx, name, alarms[0])
	}
}
