package federation

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// The alarms of a relationship. None of them takes trust away: whether a bundle counts is for [Accept] and the rules of SPIFFE
// alone. They stand until an operator brings a bundle that the peer's operator vouches for.
const (
	// AlarmBrokenChain says that a statement does not continue the one before it, or that statements are missing.
	AlarmBrokenChain = "broken_chain"
	// AlarmNewChain says that the domain's chain of statements starts anew, by the domain's own word.
	AlarmNewChain = "new_chain"
	// AlarmSplitView says that two sources show different things under one sequence.
	AlarmSplitView = "split_view"
)

// alarm is what is wrong with what a domain shows.
type alarm struct {
	name     string
	sequence uint64
	detail   string
}

// raise adds the alarms to a relationship that it does not have yet, and returns those. The first of each kind stays: it is the
// evidence of what began, and a peer cannot make this cluster write by doing it again and again.
func raise(row *statev1.Relationship, alarms []alarm, now *timestamppb.Timestamp) (raised []alarm) {
	for _, a := range alarms {
		if slices.ContainsFunc(row.GetAlarms(), func(has *statev1.RelationshipAlarm) bool { return has.GetName() == a.name }) {
			continue
		}
		row.Alarms = append(row.Alarms, &statev1.RelationshipAlarm{Name: a.name, Detail: clip(a.detail), Time: now, Sequence: a.sequence})
		raised = append(raised, a)
	}
	return raised
}

// raiseSplit raises the alarm on a relationship, if a view of its domain is not what was shown before.
func raiseSplit(tx *raftstore.Tx, row raftstore.Row[*statev1.Relationship], view statement.View, now time.Time) ([]alarm, error) {
	split, err := contradicts(tx, row.Key, view)
	if err != nil || split == nil {
		return nil, err
	}
	raised := raise(row.Value, []alarm{{AlarmSplitView, view.Sequence, split.Error()}}, timestamppb.New(now))
	if len(raised) == 0 {
		return nil, nil
	}
	return raised, Relationships.Put(tx, row.Key, row.Value)
}

// contradicts returns what in a domain's history is not as view has it; nil: nothing.
func contradicts(r raftstore.Reader, name string, view statement.View) (*statement.SplitView, error) {
	h, err := historyOf(r, name)
	if err != nil {
		return nil, err
	}
	return splitOf(h, view), nil
}

// splitOf is the same for one history.
func splitOf(h *statev1.ForeignHistory, view statement.View) (split *statement.SplitView) {
	if before, ok := shown(h, view.Sequence); ok {
		errors.As(statement.CompareViews(before, view), &split)
	}
	return split
}

// againstHubs is the alarm that what a domain shows raises, where a hub says something else under the same sequence; none: no hub does.
func againstHubs(r raftstore.Reader, name string, view statement.View) ([]alarm, error) {
	for row, err := range HubBundles.All(r, name+"/") {
		if err != nil {
			return nil, err
		}
		says, err := HubBundle(row.Value)
		if err != nil {
			return nil, err
		}
		if split := statement.CompareViews(view, statement.ViewOf(says, "hub "+row.Value.GetHub())); split != nil {
			return []alarm{{AlarmSplitView, view.Sequence, split.Error()}}, nil
		}
	}
	return nil, nil
}

// alarmsOf are a relationship's alarms, by name.
func alarmsOf(row *statev1.Relationship) (names []string) {
	for _, a := range row.GetAlarms() {
		names = append(names, a.GetName())
	}
	return names
}
