package relationship

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// The alarms of a relationship. None of them takes trust away: whether a bundle counts is for [Accept] and the rules of
// SPIFFE alone. They stand until an operator brings a bundle that the peer's operator vouches for.
const (
	// AlarmBrokenChain says that a statement does not continue the one before it, or that statements are missing.
	AlarmBrokenChain = "broken_chain"
	// AlarmNewChain says that the domain's chain of statements starts anew, by the domain's own word.
	AlarmNewChain = "new_chain"
	// AlarmSplitView says that two sources show different things under one sequence.
	AlarmSplitView = "split_view"
)

// Alarm is what is wrong with what a domain shows.
type Alarm struct {
	Name     string
	Sequence uint64
	Detail   string
}

// Raise adds the alarms to a relationship that it does not have yet, and returns those. The first of each kind stays:
// it is the evidence of what began, and a peer cannot make this cluster write by doing it again and again.
func Raise(row *statev1.Relationship, alarms []Alarm, now *timestamppb.Timestamp) (raised []Alarm) {
	for _, a := range alarms {
		if slices.ContainsFunc(
			row.GetAlarms(),
			func(has *statev1.RelationshipAlarm) bool { return has.GetName() == a.Name },
		) {
			continue
		}
		row.Alarms = append(
			row.Alarms,
			&statev1.RelationshipAlarm{Name: a.Name, Detail: Clip(a.Detail), Time: now, Sequence: a.Sequence},
		)
		raised = append(raised, a)
	}
	return raised
}

// RaiseSplit raises the alarm on a relationship, if a view of its domain is not what was shown before.
func RaiseSplit(
	tx *raftstore.Tx,
	row raftstore.Row[*statev1.Relationship],
	view statement.View,
	now time.Time,
) ([]Alarm, error) {
	split, err := Contradicts(tx, row.Key, view)
	if err != nil || split == nil {
		return nil, err
	}
	raised := Raise(row.Value, []Alarm{{AlarmSplitView, view.Sequence, split.Error()}}, timestamppb.New(now))
	if len(raised) == 0 {
		return nil, nil
	}
	return raised, Relationships.Put(tx, row.Key, row.Value)
}

// Contradicts returns what in a domain's history is not as view has it; nil: nothing.
func Contradicts(r raftstore.Reader, name string, view statement.View) (*statement.SplitView, error) {
	h, err := HistoryOf(r, name)
	if err != nil {
		return nil, err
	}
	return SplitOf(h, view), nil
}

// SplitOf is the same for one history.
func SplitOf(h *statev1.ForeignHistory, view statement.View) (split *statement.SplitView) {
	if before, ok := Shown(h, view.Sequence); ok {
		errors.As(statement.CompareViews(before, view), &split)
	}
	return split
}

// AgainstHubs is the alarm that what a domain shows raises, where a hub says something else under the same sequence;
// none: no hub does.
func AgainstHubs(r raftstore.Reader, name string, view statement.View) ([]Alarm, error) {
	for row, err := range HubBundles.All(r, name+"/") {
		if err != nil {
			return nil, err
		}
		says, err := HubBundle(row.Value)
		if err != nil {
			return nil, err
		}
		if split := statement.CompareViews(view, statement.ViewOf(says, "hub "+row.Value.GetHub())); split != nil {
			return []Alarm{{AlarmSplitView, view.Sequence, split.Error()}}, nil
		}
	}
	return nil, nil
}

// AlarmsOf are a relationship's alarms, by name.
func AlarmsOf(row *statev1.Relationship) (names []string) {
	for _, a := range row.GetAlarms() {
		names = append(names, a.GetName())
	}
	return names
}
