package table_test

import (
	"fmt"
	"slices"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
)

// operate carries out an operator action.
func (s *simulation) operate(actions []plan.Action) {
	for _, a := range actions {
		s.act("operator", s.now, a, nil)
	}
	s.settle()
}

// all returns the authorities as the rules see them.
func (s *simulation) all() []plan.Authority {
	all := make([]plan.Authority, len(s.rows))
	for i, row := range s.rows {
		all[i] = table.AuthorityOf(row)
	}
	return all
}

// others checks that no member ends another's authority before its time, whatever its clock shows.
func (s *simulation) others(m *simulated, row *statev1.Authority, a plan.Action) {
	if m == nil || m.name == row.GetMember() || s.member(row.GetMember()).removed {
		return
	}
	due := table.TimeOf(row.GetNotAfter())
	if plan.State(row.GetState()).Past() {
		due = table.AuthorityOf(row).Leaves(s.grace)
	}
	if a.Do != plan.End || s.now.Before(due) {
		s.broken = append(
			s.broken,
			fmt.Sprintf("%s took %s away from %s at %s, before %s", m.name, row.GetId(), row.GetMember(),
				s.clock(s.now), s.clock(due)),
		)
	}
}

// revoked does what a transaction does with the anchor of a revoked authority. What the anchor verified is no longer
// required to verify.
func (s *simulation) revoked(row *statev1.Authority) {
	if row.GetUpstreamAnchor() {
		return
	}
	delete(s.needed, verifier(row))
	if len(row.GetAnchors()) > 0 {
		row.AnchorRevoked, s.anchors[verifier(row)] = true, true
	}
}

// publishes reports whether a row keeps what verifies it in the bundle.
func publishes(row *statev1.Authority) bool {
	return plan.State(row.GetState()) != plan.Revoked || (row.GetUpstreamAnchor() && !row.GetAnchorRevoked())
}

// skewed reports whether a clock is off.
func (s *simulation) skewed() bool {
	return slices.ContainsFunc(s.members, func(m *simulated) bool { return m.skew != 0 })
}

// serves reports whether the member of an authority can sign with it.
func (s *simulation) serves(id string) bool {
	return slices.ContainsFunc(s.rows, func(row *statev1.Authority) bool { return row.GetId() == id && s.alive(row) })
}

// servedWithout reports whether other members than this one sign.
func (s *simulation) servedWithout(name string) bool {
	for _, kind := range plan.Kinds {
		if !slices.ContainsFunc(s.rows, func(row *statev1.Authority) bool {
			return plan.Kind(row.GetKind()) == kind && row.GetMember() != name &&
				plan.State(row.GetState()) == plan.Active &&
				s.alive(row)
		}) {
			return false
		}
	}
	return true
}

// unlessAbsent skips an operator action that would leave signing to absent members: they count, since they can return
// before any reader knows another authority, and the operator is warned.
func (s *simulation) unlessAbsent(actions []plan.Action) []plan.Action {
	for _, kind := range plan.Kinds {
		left, serving := 0, 0
		for _, row := range s.rows {
			hit := slices.ContainsFunc(actions, func(a plan.Action) bool { return a.ID == row.GetId() })
			if plan.Kind(row.GetKind()) != kind || plan.State(row.GetState()) != plan.Active || hit {
				continue
			}
			left++
			if s.alive(row) {
				serving++
			}
		}
		if left > 0 && serving == 0 {
			return nil
		}
	}
	return actions
}

// atRest checks what must not exist once no member has anything to do.
func (s *simulation) atRest() {
	for _, row := range s.rows {
		a, m := table.AuthorityOf(row), s.member(row.GetMember())
		if m.asleep || m.removed || !s.sane(m) || a.State.Past() {
			continue
		}
		if m.lost[a.ID] {
			s.broken = append(s.broken,
				fmt.Sprintf("at %s: %s is %s, and no member has its key", s.clock(s.now), a.ID, a.State))
		}
		if a.State == plan.Prepared && s.situation(m).Suspect()[a.Anchor] {
			s.broken = append(
				s.broken,
				fmt.Sprintf("at %s: %s is to sign below %s, as one did that was tainted", s.clock(s.now), a.ID,
					verifier(row)),
			)
		}
		if s.anchors[verifier(row)] {
			s.broken = append(
				s.broken,
				fmt.Sprintf("at %s: %s is %s below %s, which was revoked", s.clock(s.now), a.ID, a.State,
					verifier(row)),
			)
		}
	}
}
