package relationship

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// The alarms of a relationship. None of them removes trust: whether a bundle counts is decided by [Accept] and the
// rules of SPIFFE. They stand until an operator provides a bundle that was verified with the peer's operator.
const (
	// AlarmBrokenChain means that a statement does not continue the one before it, or that statements are missing.
	AlarmBrokenChain = "broken_chain"
	// AlarmNewChain means that the domain's chain of statements restarts, by a statement of the domain itself.
	AlarmNewChain = "new_chain"
	// AlarmSplitView means that two sources show different keys under one sequence.
	AlarmSplitView = "split_view"
)

// Alarm is a contradiction in what a domain shows.
type Alarm struct {
	Name     string
	Sequence uint64
	Detail   string
}

// Raise adds the alarms that a relationship does not have yet, and returns those. The first of each kind stays: it is
// the evidence of how the contradiction began, and a peer cannot cause further writes by repeating it.
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

// RaiseSplit raises [AlarmSplitView] on a relationship if a view of its domain contradicts the history.
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

// Contradicts returns how a view contradicts the history of a domain, or nil.
func Contradicts(r raftstore.Reader, name string, view statement.View) (*statement.SplitView, error) {
	h, err := HistoryOf(r, name)
	if err != nil {
		return nil, err
	}
	return SplitOf(h, view), nil
}

// SplitOf returns how a view contradicts a history, or nil.
func SplitOf(h *statev1.ForeignHistory, view statement.View) (split *statement.SplitView) {
	if before, ok := Shown(h, view.Sequence); ok {
		errors.As(statement.CompareViews(before, view), &split)
	}
	return split
}

// AgainstHubs returns the alarm that a view raises if a hub attests other keys under the same sequence.
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

// AlarmsOf returns the names of a relationship's alarms.
func AlarmsOf(row *statev1.Relationship) (names []string) {
	for _, a := range row.GetAlarms() {
		names = append(names, a.GetName())
	}
	return names
}

// AlarmMessages returns stored alarms in the form of the API.
func AlarmMessages(alarms []*statev1.RelationshipAlarm) (out []*ententev1.RelationshipAlarm) {
	for _, a := range alarms {
		out = append(out, &ententev1.RelationshipAlarm{
			Name: a.GetName(), Detail: a.GetDetail(), Time: a.GetTime(), Sequence: a.GetSequence(),
		})
	}
	return out
}
