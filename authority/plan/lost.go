package plan

import (
	"slices"
	"time"
)

// clockTolerance is how far the leader's clock may be from that of the member whose authority it ends; until then the
// member itself has had the time to do it.
const ClockTolerance = 5 * time.Minute

// PlanForLost says what the leader has to do about the authorities of a domain that their own member will not look
// after: those of members that are not in the cluster any more, and those that are overdue. It says when to ask
// again. members are those in the cluster; grace is the signing grace.
func ForLost(now time.Time, authorities []Authority, members []string, grace time.Duration) (actions []Action, next time.Time) {
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
