// Package autopilot removes dead members without an operator: the leader removes a member that has been dead for
// [Settings.DeadAfter], once enough other members with a vote are alive.
//
// A member is removed only if the leader has not heard from it for [Settings.DeadAfter], and if without it at least
// [Settings.MinQuorum] members with a vote are alive that have been members for [Stable]: a replacement has come, and
// has proved itself. The leader must have observed the silence itself for [MinDeadAfter], by the steady part of its
// clock: a member that restarts while all clocks step, or that is away when another leader begins, is not removed. So a
// cluster never shrinks below that by itself, whatever fails. One member is removed at a time, by the same way as by an
// operator, with a line in the audit log, and only while the leader's clock is near those of a majority. Votes are
// given by package membership, when a member has caught up.
//
// [Judge] has the decision; [Pilot] is the loop and the service around it.
package autopilot

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// Settings are what operators can change.
type Settings struct {
	// Remove is whether dead members are removed.
	Remove bool
	// DeadAfter is for how long a member was not heard before it is removed.
	DeadAfter time.Duration
	// MinQuorum is how many members with a vote must be alive without it.
	MinQuorum int
}

// Defaults hold until somebody changes them.
var Defaults = Settings{Remove: true, DeadAfter: 24 * time.Hour, MinQuorum: 3}

// The bounds of the settings.
const (
	MinDeadAfter = 10 * time.Minute
	MaxDeadAfter = 30 * 24 * time.Hour
	MaxMinQuorum = 9
)

// Stable is for how long a member has been one before it counts as a replacement.
const Stable = 10 * time.Minute

// of returns the settings of a row.
func of(row *statev1.Autopilot) Settings {
	return Settings{
		Remove: row.GetRemoveDeadMembers(), DeadAfter: row.GetDeadAfter().AsDuration(),
		MinQuorum: int(row.GetMinQuorum()),
	}
}

func (s Settings) row(generation uint64) *statev1.Autopilot {
	return &statev1.Autopilot{
		RemoveDeadMembers: s.Remove, DeadAfter: durationpb.New(s.DeadAfter),
		MinQuorum: uint32(s.MinQuorum), Generation: generation, //nolint:gosec // at most MaxMinQuorum
	}
}

// Member is a member as the leader knows it.
type Member struct {
	ID, Zone string
	// Voter is whether it has a vote, NonVoter whether it never gets one.
	Voter, NonVoter bool
	// Alive is whether the leader receives its heartbeats.
	Alive bool
	// Joined is when it became a member, and LastHeard when it was last heard, if it is not alive; zero: never.
	Joined, LastHeard time.Time
}

// Verdict is what becomes of a member that is not as it should be.
type Verdict struct {
	ID string
	// Text is a sentence for operators, without the ID.
	Text string
	// Remove is when the member is removed; zero: it is not.
	Remove time.Time
}

// seen is since when one leader has observed itself that a member is not alive. The times have a monotonic reading.
type seen map[string]time.Time

// observe updates what a leader has observed.
func (s seen) observe(members []Member, at time.Time) {
	silent := make(map[string]bool, len(members))
	for _, m := range members {
		if silent[m.ID] = !m.Alive; m.Alive {
			continue
		}
		if _, known := s[m.ID]; !known {
			s[m.ID] = at
		}
	}
	maps.DeleteFunc(s, func(id string, _ time.Time) bool { return !silent[id] })
}

// long reports whether the leader itself has observed the silence of a member for [MinDeadAfter]. So neither a step of
// all clocks nor the start of a leader removes a member that is about to return.
func (s seen) long(id string, at time.Time) bool {
	since, known := s[id]
	return known && at.Sub(since) >= MinDeadAfter
}

// Judge returns a verdict on each member that is dead or waits for its vote, in the order of the members.
func Judge(s Settings, members []Member, now time.Time) []Verdict {
	var out []Verdict
	for _, m := range members {
		switch {
		case m.Alive && !m.Voter && !m.NonVoter:
			out = append(out, Verdict{ID: m.ID, Text: "gets its vote once it has caught up"})
		case !m.Alive:
			out = append(out, dead(s, m, replacements(members, m.ID, now)))
		}
	}
	return out
}

// dead judges a member that is not alive. replacements is how many members replace it.
func dead(s Settings, m Member, replacements int) Verdict {
	v := Verdict{ID: m.ID}
	switch {
	case !s.Remove:
		v.Text = "is not alive; dead members are not removed: 'entente cluster autopilot set --remove-dead-members' " +
			"changes that"
	case m.LastHeard.IsZero():
		v.Text = fmt.Sprintf("has sent no heartbeat since it joined, and is not removed automatically: start it, or "+
			"run 'entente cluster remove %s'", m.ID)
	case replacements < s.MinQuorum:
		v.Text = fmt.Sprintf("is not alive; it is removed once %d members with a vote are alive without it and have "+
			"been members for %s, and %d are: start it, or add a member", s.MinQuorum, Stable, replacements)
	default:
		v.Text = "is not alive, and others replace it: it is removed at the time shown, unless it returns before"
		v.Remove = m.LastHeard.Add(s.DeadAfter)
	}
	return v
}

// replacements returns how many members with a vote are alive and stable, without one.
func replacements(members []Member, without string, now time.Time) int {
	n := 0
	for _, m := range members {
		if m.ID != without && m.Voter && m.Alive && now.Sub(m.Joined) >= Stable {
			n++
		}
	}
	return n
}

// due returns the member that is to be removed now: the one that has been dead for longest.
func due(verdicts []Verdict, now time.Time) (Verdict, bool) {
	var first Verdict
	for _, v := range verdicts {
		if !v.Remove.IsZero() && !now.Before(v.Remove) && (first.ID == "" || v.Remove.Before(first.Remove)) {
			first = v
		}
	}
	return first, first.ID != ""
}

// Tolerance returns how many of the members with a vote that are alive can be lost before there is no quorum.
func Tolerance(members []Member) int {
	voters, alive := votes(members)
	return max(0, alive-(voters/2+1))
}

func votes(members []Member) (voters, alive int) {
	for _, m := range members {
		if m.Voter {
			voters++
			if m.Alive {
				alive++
			}
		}
	}
	return voters, alive
}

// Warnings returns sentences on members with a vote that one failure would take at once, and on their number.
func Warnings(members []Member) []string {
	zones := map[string]int{}
	voters, _ := votes(members)
	for _, m := range members {
		if m.Voter {
			zones[m.Zone]++
		}
	}
	var out []string
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		if n := zones[zone]; voters > 2 && n > (voters-1)/2 {
			out = append(out, fmt.Sprintf("%d of %d members with a vote are in zone %s: its loss is the loss of the "+
				"quorum; add members in other zones", n, voters, zone))
		}
	}
	if voters > 0 && voters%2 == 0 {
		out = append(out, fmt.Sprintf("%d members with a vote bear no more losses than %d: add one, or make one a "+
			"non-voter", voters, voters-1))
	}
	return out
}
