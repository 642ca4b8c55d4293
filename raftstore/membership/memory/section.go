// Package memory implements the leader's memory: what each member knows first-hand, collected with the heartbeats and
// kept on the leader, without a write to the Raft log.
//
// A [Section] is one room's part of it. It has two sides. [Section.Own] holds the latest value of each key on the
// member that knows it; every member has one. [Section.Received] holds, on the leader, what all members have reported,
// its own values included. Nothing of it is durable: a new leader starts with an empty memory, and every member then
// reports everything again. A room therefore gives what is missing the benefit of the doubt for a while after a change
// of leader.
//
// A Section is registered with the membership under its name, which then calls [Section.Collect], [Section.Deliver],
// [Section.Answer] and [Section.Reset]. Other members send queries to the leader by the membership's Query.
//
//	seen := memory.New(memory.Config[string, time.Time]{
//		Name:   "leases",
//		Encode: encodeRenewals,
//		Decode: decodeRenewals,
//		Merge:  func(was time.Time, known bool, is time.Time) (time.Time, bool) { return later(was, is), true },
//		Now:    time.Now,
//	})
//	manager.Register("leases", seen)
//
//	seen.Own.Set(lease, time.Now())           // on the member that renewed it
//	renewed, ok := seen.Received.Get(lease)   // on the leader
//
// Clocks of members differ, so that reports carry ages instead of times; the conversion is the codec's.
package memory

import (
	"fmt"
	"time"
)

// Entry is the value of one key.
type Entry[K comparable, V any] struct {
	Key   K
	Value V
}

// Report is what one member sends to the leader with one heartbeat.
type Report[K comparable, V any] struct {
	// Run identifies the process of the member. A codec that does not transport it leaves it 0.
	Run uint64
	// Full marks the last part of a report of everything. A codec that does not transport it leaves it false.
	Full    bool
	Entries []Entry[K, V]
}

// Config describes a [Section]. Name, Encode, Decode and Now are required.
type Config[K comparable, V any] struct {
	// Name is the name under which the section is registered.
	Name string
	// Encode turns a report into bytes. Without a result, nothing is sent.
	Encode func(Report[K, V]) ([]byte, error)
	// Decode is its inverse, on the leader. A key may include the member, where the leader keeps the values of members
	// apart.
	Decode func(member string, report []byte) (Report[K, V], error)
	// Merge combines a received value with the one that the leader has for the key. If it returns false, the key is
	// deleted. If Merge is nil, the value that was received last counts. It must not use the section.
	Merge func(was V, known bool, is V) (V, bool)
	// Once reports whether an own value is deleted after it was sent, so that a later leader does not receive it. If
	// nil, none is. It must not use the section.
	Once func(K, V) bool
	// Cost is the size of an entry in a report, in a unit of the room's choice. If nil, each costs 1.
	Cost func(K, V) int
	// MaxReport bounds the cost of one report; the rest goes with the next heartbeat. If 0, there is no bound.
	MaxReport int
	// MaxReceived bounds how many keys the leader keeps; further ones are ignored. If 0, there is no bound.
	MaxReceived int
	// Restarted is called on the leader, before a report is taken over, if another process of the member made it than
	// the one before. It may use the section. If nil, nothing happens.
	Restarted func(member string)
	// Answer answers a query from what was received. If nil, queries are refused.
	Answer func(query []byte) ([]byte, error)
	// Reset is called after the memory was emptied because this member begins to lead. If nil, nothing happens.
	Reset func()
	// Refused receives the errors of reports that do not decode, with the member that sent them, and those of Encode,
	// with an empty one. If nil, they are dropped.
	Refused func(member string, err error)
	// Now returns the present time.
	Now func() time.Time
}

// Section is one room's part of the leader's memory. It is safe for concurrent use.
type Section[K comparable, V any] struct {
	// Own holds what this member knows.
	Own *Own[K, V]
	// Received holds what members have reported to this one while it leads.
	Received *Received[K, V]

	config Config[K, V]
}

// New returns an empty section.
func New[K comparable, V any](config Config[K, V]) *Section[K, V] {
	return &Section[K, V]{Own: newOwn(config), Received: newReceived(config), config: config}
}

// Collect encodes the values that have changed since the last call, or all of them if full is set, as far as the bound
// of a report allows. It returns nil if there is nothing to send.
func (s *Section[K, V]) Collect(full bool) []byte {
	report, ok := s.Own.collect(full)
	if !ok {
		return nil
	}
	encoded, err := s.config.Encode(report)
	if err != nil {
		s.refuse("", fmt.Errorf("encode the report of section %s: %w", s.config.Name, err))
		return nil
	}
	if len(encoded) == 0 {
		return nil
	}
	return encoded
}

// Deliver takes over the report of a member, on the leader. A report that does not decode is refused as a whole.
func (s *Section[K, V]) Deliver(member string, report []byte) {
	decoded, err := s.config.Decode(member, report)
	if err != nil {
		s.refuse(member, fmt.Errorf("decode the report of section %s: %w", s.config.Name, err))
		return
	}
	if s.Received.restarted(member, decoded.Run) && s.config.Restarted != nil {
		s.config.Restarted(member)
	}
	s.Received.deliver(member, decoded)
}

func (s *Section[K, V]) refuse(member string, err error) {
	if s.config.Refused != nil {
		s.config.Refused(member, err)
	}
}

// Answer answers a query, on the leader.
func (s *Section[K, V]) Answer(query []byte) ([]byte, error) {
	if s.config.Answer == nil {
		return nil, fmt.Errorf("section %s does not answer queries", s.config.Name)
	}
	return s.config.Answer(query)
}

// Reset empties what was received: this member begins to lead. Its own values stay.
func (s *Section[K, V]) Reset() {
	s.Received.reset()
	if s.config.Reset != nil {
		s.config.Reset()
	}
}
