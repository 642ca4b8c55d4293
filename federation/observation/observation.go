// Package observation holds what members know about the fetching of relationships: when each was last tried, with what
// result, and when it is fetched next.
//
// None of it is replicated. A member records its own attempts in a [Section] and sends them to the leader with its
// heartbeats. The leader keeps the latest of all members in memory and answers queries from it. Observations of a hub's
// bundle map are kept under the hub's name with [relationship.MapSuffix].
package observation

import (
	"strings"
	"time"

	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore/membership/memory"
)

const (
	// Name is the name under which a [Section] is registered with the membership.
	Name = "federation"
	// MaxReport bounds the observations of one heartbeat, and maxAnswer those of one answer. Each has at most some
	// 2,500 bytes, so that both stay well below the 4 MiB of a gRPC message. The next one takes what does not fit.
	MaxReport = 500
	maxAnswer = 1000
)

// Observation is the latest that is known about the fetching of one relationship.
type Observation struct {
	Generation  uint64
	Member      string
	LastSuccess time.Time
	LastAttempt time.Time
	// Next is when the owner fetches again. It is zero where the member does not own the relationship.
	Next     time.Time
	Interval time.Duration
	Result   string
	Error    string
	// Endpoints has the last attempt at each endpoint, where there are several. It is shared and never modified.
	Endpoints []Attempt
	// Count is the number of domains in a hub's map, by what became of them. It is zero for a bundle.
	Count MapCount
}

// Attempt is the last attempt at one endpoint.
type Attempt struct {
	At            time.Time
	Result, Error string
}

// MapCount counts the domains in a hub's map: those that were stored, refused, and left out by the relationship.
type MapCount struct{ Accepted, Refused, LeftOut int }

// Section is what a member knows of its own fetching and, on the leader, what every member has reported.
type Section struct {
	*memory.Section[string, Observation]
}

// New returns an empty section.
func New(now func() time.Time) *Section {
	s := &Section{}
	s.Section = memory.New(memory.Config[string, Observation]{
		Name: Name, Now: now, MaxReport: MaxReport,
		Encode: func(r memory.Report[string, Observation]) ([]byte, error) { return encode(r, now()) },
		Decode: func(member string, report []byte) (memory.Report[string, Observation], error) {
			return decode(member, report, now())
		},
		Merge:  func(was Observation, _ bool, is Observation) (Observation, bool) { return Merge(was, is), true },
		Once:   sentOnce,
		Answer: func(query []byte) ([]byte, error) { return s.answer(query, now()) },
	})
	return s
}

// sentOnce reports whether the member forgets an observation once the leader has it: an operator had the bundle fetched
// on a member that does not own the relationship. What a stream to this member confirmed is kept for the next leader,
// because no other member has seen it.
func sentOnce(name string, o Observation) bool {
	_, isMap := HubOf(name)
	return o.Next.IsZero() && !isMap && o.Result != relationship.ResultConfirmed
}

// Attempted records the result of an attempt. succeeded means that it confirmed the stored bundle or replaced it.
func (s *Section) Attempted(name string, generation uint64, at time.Time, succeeded bool, result, failure string) {
	s.update(name, func(o *Observation) {
		o.Generation, o.LastAttempt, o.Result, o.Error = generation, at, result, relationship.Clip(failure)
		if succeeded {
			o.LastSuccess = at
		}
	})
}

// Tried records the attempts at the endpoints of a relationship that has several.
func (s *Section) Tried(name string, generation uint64, endpoints []Attempt) {
	s.update(name, func(o *Observation) { o.Generation, o.Endpoints = generation, endpoints })
}

// Counted records what became of the domains in a hub's map.
func (s *Section) Counted(name string, count MapCount) {
	s.update(name, func(o *Observation) { o.Count = count })
}

// Planned records when the owner fetches next.
func (s *Section) Planned(name string, generation uint64, next time.Time, interval time.Duration) {
	s.update(name, func(o *Observation) { o.Generation, o.Next, o.Interval = generation, next, interval })
}

func (s *Section) update(name string, change func(*Observation)) {
	s.Own.Update(name, func(o *Observation) bool {
		change(o)
		return true
	})
}

// Disowned removes a relationship that this member no longer fetches.
func (s *Section) Disowned(name string) { s.Own.Delete(name) }

// Success returns the last success that was reported to the leader, or the zero time.
func (s *Section) Success(name string) time.Time {
	o, _ := s.Received.Get(name)
	return o.LastSuccess
}

// Ended removes what was reported of a relationship that has ended, and what this member saw of it without owning it.
func (s *Section) Ended(name string) {
	if o, ok := s.Own.Get(name); ok && o.Next.IsZero() {
		s.Own.Delete(name)
	}
	s.Received.Delete(name)
	s.Received.Delete(name + relationship.MapSuffix)
}

// Sweep removes what was reported of relationships that do not exist. exists is called without the lock of the section,
// because callers of [Section.Success] may hold the lock that exists takes.
func (s *Section) Sweep(exists func(name string) bool) {
	for observed := range s.Received.All() {
		if name, _ := HubOf(observed); !exists(name) {
			s.Ended(name)
		}
	}
}

// HubOf returns the hub that an observation is about, and whether it is about the hub's map.
func HubOf(name string) (hub string, isMap bool) {
	return strings.CutSuffix(name, relationship.MapSuffix)
}

// Merge combines two observations of a relationship: the latest attempt, and the latest success. Only the owner knows
// of a next turn.
func Merge(was, is Observation) Observation {
	out := is
	if was.LastAttempt.After(is.LastAttempt) {
		out = was
	}
	if is.Next.IsZero() {
		out.Next, out.Interval = was.Next, was.Interval
	} else {
		out.Next, out.Interval = is.Next, is.Interval
	}
	out.Generation = max(was.Generation, is.Generation)
	out.LastSuccess = is.LastSuccess
	if was.LastSuccess.After(is.LastSuccess) {
		out.LastSuccess = was.LastSuccess
	}
	return out
}
