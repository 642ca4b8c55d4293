package intake

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// Announce logs, counts and audits alarms that were raised.
func (in *Intake) Announce(name string, raised []relationship.Alarm, revision raftstore.Revision) {
	for _, a := range raised {
		in.AlarmsTotal.WithLabelValues(a.Name).Inc()
		in.config.Log.Error("what a domain shows contradicts itself; ask its operators, and see "+
			"'entente federation show' and 'entente bundle history'",
			"trust_domain", name, "alarm", a.Name, "sequence", a.Sequence, "detail", relationship.Clip(a.Detail))
		detail := fmt.Sprintf("sequence %d: %s", a.Sequence, a.Detail)
		in.Record(actionAlarm, name, a.Name, relationship.Clip(detail), revision)
	}
}

// Compare compares what a source shows with what any source showed before under the same sequence, and raises
// [relationship.AlarmSplitView] where they differ. It is for bundles that are not stored: [Intake.Keep] compares those
// that are. An error means that the alarm could not be written.
func (in *Intake) Compare(ctx context.Context, name string, view statement.View) error {
	if split, err := relationship.Contradicts(in.config.Store.View(), name, view); err != nil || split == nil {
		return err
	}
	var raised []relationship.Alarm
	revision, err := in.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		raised = nil
		row, found, err := relationship.Relationships.Get(tx, name)
		if err != nil || !found {
			return err
		}
		raised, err = relationship.RaiseSplit(tx, row, view, in.config.Now())
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			in.config.Log.Warn("alarm not written; it is raised again at the next comparison", "trust_domain", name,
				"alarm", relationship.AlarmSplitView, "error", err)
		}
		return err
	}
	in.Announce(name, raised, revision)
	return nil
}

// CompareBundle is [Intake.Compare] for a bundle that was refused.
func (in *Intake) CompareBundle(ctx context.Context, name string, b *bundle.Bundle, source string) error {
	return in.Compare(ctx, name, statement.ViewOf(b, source))
}

// CompareWithHubs compares the first bundle of a relationship with what hubs attest of its domain.
func (in *Intake) CompareWithHubs(ctx context.Context, name string) {
	view := in.config.Store.View()
	h, err := relationship.HistoryOf(view, name)
	newest := relationship.NewestVersion(h)
	if err != nil || newest == nil || newest.Sequence == nil {
		return
	}
	first, _ := relationship.Shown(h, newest.GetSequence())
	if alarms, err := relationship.AgainstHubs(view, name, first); err == nil && len(alarms) > 0 {
		in.RaiseAlarm(ctx, name, alarms[0])
	}
}

// RaiseAlarm raises an alarm on a relationship that does not have one of its name. If it cannot be written, the next
// refresh finds it again.
func (in *Intake) RaiseAlarm(ctx context.Context, name string, a relationship.Alarm) {
	row, found, err := relationship.Relationships.Get(in.config.Store.View(), name)
	if err != nil || !found || slices.Contains(relationship.AlarmsOf(row.Value), a.Name) {
		return
	}
	var raised []relationship.Alarm
	revision, err := in.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		raised = nil
		row, found, err := relationship.Relationships.Get(tx, name)
		if err != nil || !found {
			return err
		}
		raised = relationship.Raise(row.Value, []relationship.Alarm{a}, timestamppb.New(in.config.Now()))
		if len(raised) == 0 {
			return nil
		}
		return relationship.Relationships.Put(tx, name, row.Value)
	})
	if err == nil {
		in.Announce(name, raised, revision)
	}
}
