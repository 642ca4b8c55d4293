package machine

import (
	"maps"
	"slices"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// Outcome is the result of one command. It is what Apply returns, and what is remembered. The zero value means that the
// command is too old: it was not applied now, and may have been before.
type Outcome struct {
	Applied  bool
	Revision uint64
}

// session remembers the commands of one member. Those below floor are never applied: their sender has their outcomes,
// or they were forgotten for lack of room.
type session struct {
	incarnation uint64
	floor       uint64
	revision    uint64
	outcomes    map[uint64]Outcome
}

// MaxOpen is how many commands of one member may be under way at a time.
const MaxOpen = 1024

// The limits of what is remembered. A member has at most MaxOpen commands under way, so that outcomes are only
// forgotten if it misbehaves, and sessions only after that many changes of identity.
const (
	maxOutcomes = 2 * MaxOpen
	maxSessions = 256
)

// Recall is what is remembered of a command.
type Recall int

const (
	// Unknown is a command that can be applied.
	Unknown Recall = iota
	// Recalled is a command that has an outcome.
	Recalled
	// Forgotten is a command that must not be applied because it may have been.
	Forgotten
)

// lookUp finds a command in the sessions.
func lookUp(sessions map[string]*session, id *statev1.CommandID) (Outcome, Recall) {
	s, ok := sessions[id.GetMember()]
	switch {
	case !ok || id.GetIncarnation() > s.incarnation:
		return Outcome{}, Unknown
	case id.GetIncarnation() < s.incarnation:
		return Outcome{}, Forgotten
	}
	if o, ok := s.outcomes[id.GetCounter()]; ok {
		return o, Recalled
	}
	if id.GetCounter() < s.floor {
		return Outcome{}, Forgotten
	}
	return Outcome{}, Unknown
}

// clone makes a copy that can be changed.
func (s *session) clone() *session {
	c := *s
	c.outcomes = maps.Clone(s.outcomes)
	return &c
}

// settle forgets the outcomes of commands below a counter.
func (s *session) settle(below uint64) {
	if below <= s.floor {
		return
	}
	if below-s.floor < uint64(len(s.outcomes)) {
		for c := s.floor; c < below; c++ {
			delete(s.outcomes, c)
		}
	} else {
		maps.DeleteFunc(s.outcomes, func(c uint64, _ Outcome) bool { return c < below })
	}
	s.floor = below
}

// remember keeps an outcome, and forgets the older half if there are too many.
func (s *session) remember(counter uint64, o Outcome) {
	s.outcomes[counter] = o
	if len(s.outcomes) <= maxOutcomes {
		return
	}
	counters := slices.Sorted(maps.Keys(s.outcomes))
	s.settle(counters[len(counters)/2])
}

// oldestSession returns the member whose last command is the oldest; of several, the smallest name.
func oldestSession(sessions map[string]*session) string {
	var oldest string
	for member, s := range sessions {
		o, ok := sessions[oldest]
		if !ok || s.revision < o.revision || s.revision == o.revision && member < oldest {
			oldest = member
		}
	}
	return oldest
}
