package plan

import (
	"slices"
	"time"
)

// ClockTolerance is the largest difference between the clocks of two members. The leader waits for it before it ends
// another member's authority, so that the member itself has the time to do that.
const ClockTolerance = 5 * time.Minute

// ForLost returns what the leader has to do with the authorities of a domain that their own member does not end: those
// of members that left the cluster, and those that are overdue. It also returns when to evaluate it again. members are
// those in the cluster, and grace is the signing grace.
func ForLost(
	now time.Time, authorities []Authority, members []string, grace time.Duration,
) (actions []Action, next time.Time) {
	do := func(verb Verb, a Authority, why string) {
		actions = append(actions, Action{Do: verb, Kind: a.Kind, ID: a.ID, Why: why})
	}
	for _, a := range authorities {
		over, why := a.NotAfter, "it has expired and its member did not end it"
		if a.State.Past() {
			over, why = a.Leaves(grace), "all that it signed has expired and its member did not end it"
		}
		over = over.Add(ClockTolerance)
		removed := !slices.Contains(members, a.Member)
		switch {
		case !now.Before(over):
			do(End, a, why)
			continue
		case removed && a.State == Prepared:
			do(End, a, "its member was removed, and it never signed")
			continue
		case removed && a.State == Active:
			do(Retire, a, "its member was removed")
		}
		next = Sooner(next, over)
	}
	return actions, next
}
