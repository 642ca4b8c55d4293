package raftstore

import (
	"maps"
	"slices"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// outcome is the result of one command: what Apply returns, and what is remembered.
type outcome struct {
	applied  bool
	revision uint64
}

// session is what is remembered of one member's commands. Those below floor are never applied: their sender knows how they
// ended, or they were forgotten for want of room.
type session struct {
	incarnation uint64
	floor       uint64
	revision    uint64
	outcomes    map[uint64]outcome
}

// The bounds of what is remembered. A member has at most maxOpen commands under way, so that outcomes are only given up
// when it misbehaves; sessions only after that many changes of identity.
const (
	maxOutcomes = 2 * maxOpen
	maxSessions = 256
)

// recall says what is known of a command: its outcome, or that it must not be applied because it may have been.
type recall int

const (
	unheard   recall = iota // it can be applied
	recalled                // it has an outcome
	forgotten               // it is too old to tell
)

// lookUp finds a command in the sessions.
func lookUp(sessions map[string]*session, id *statev1.CommandID) (outcome, recall) {
	s, ok := sessions[id.GetMember()]
	switch {
	case !ok || id.GetIncarnation() > s.incarnation:
		return outcome{}, unheard
	case id.GetIncarnation() < s.incarnation:
		return outcome{}, forgotten
	}
	if o, ok := s.outcomes[id.GetCounter()]; ok {
		return o, recalled
	}
	if id.GetCounter() < s.floor {
		return outcome{}, forgotten
	}
	return outcome{}, unheard
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
		maps.DeleteFunc(s.outcomes, func(c uint64, _ outcome) bool { return c < below })
	}
	s.floor = below
}

// remember keeps an outcome, and gives up the oldest ones when there are too many.
func (s *session) remember(counter uint64, o outcome) {
	s.outcomes[counter] = o
	if len(s.outcomes) <= maxOutcomes {
		return
	}
	counters := slices.Sorted(maps.Keys(s.outcomes))
	s.settle(counters[len(counters)/2])
}

// oldestSession returns the member whose last command is the oldest, the smaller name first.
func oldestSession(sessions map[string]*session) string {
	var oldest string
	for member, s := range sessions {
		if o, ok := sessions[oldest]; !ok || s.revision < o.revision || s.revision == o.revision && member < oldest {
			oldest = member
		}
	}
	return oldest
}
