package observation

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore/membership/memory"
)

func encode(r memory.Report[string, Observation], now time.Time) ([]byte, error) {
	report := &statev1.RelationshipReport{}
	for _, e := range r.Entries {
		report.Observations = append(report.Observations, e.Value.message(e.Key, now))
	}
	return proto.Marshal(report)
}

func decode(member string, encoded []byte, now time.Time) (memory.Report[string, Observation], error) {
	report := &statev1.RelationshipReport{}
	if err := proto.Unmarshal(encoded, report); err != nil {
		return memory.Report[string, Observation]{}, err
	}
	out := memory.Report[string, Observation]{}
	for _, m := range report.GetObservations() {
		out.Entries = append(
			out.Entries,
			memory.Entry[string, Observation]{Key: m.GetTrustDomain(), Value: Read(m, member, now)},
		)
	}
	return out, nil
}

// answer answers a [statev1.RelationshipQuery] from what members have reported.
func (s *Section) answer(query []byte, now time.Time) ([]byte, error) {
	q := &statev1.RelationshipQuery{}
	if err := proto.Unmarshal(query, q); err != nil {
		return nil, err
	}
	answer := &statev1.RelationshipAnswer{}
	if name := q.GetTrustDomain(); name != "" {
		if o, ok := s.Received.Get(name); ok {
			answer.Observations = append(answer.Observations, o.message(name, now))
		}
		return proto.Marshal(answer)
	}
	all := s.Received.All()
	maps.DeleteFunc(all, func(name string, _ Observation) bool { return name <= q.GetAfter() })
	names := slices.Sorted(maps.Keys(all))
	if len(names) > maxAnswer {
		names, answer.More = names[:maxAnswer], true
	}
	for _, name := range names {
		answer.Observations = append(answer.Observations, all[name].message(name, now))
	}
	return proto.Marshal(answer)
}

// message encodes times as ages, because the clocks of members differ.
func (o Observation) message(name string, now time.Time) *statev1.RelationshipObservation {
	m := &statev1.RelationshipObservation{
		TrustDomain: name, Generation: o.Generation, Member: o.Member, Result: o.Result, Error: o.Error,
		Interval: durationpb.New(o.Interval),
		Accepted: uint32(o.Count.Accepted), //nolint:gosec // at most MaxMapDomains
		Refused:  uint32(o.Count.Refused),  //nolint:gosec // at most MaxMapDomains
		LeftOut:  uint32(o.Count.LeftOut),  //nolint:gosec // at most MaxMapDomains
	}
	for i, e := range o.Endpoints {
		if !e.At.IsZero() {
			m.Endpoints = append(m.Endpoints, &statev1.EndpointObservation{
				Index:  uint32(i), //nolint:gosec // at most MaxEndpoints
				Result: e.Result, Error: e.Error, SinceAttempt: durationpb.New(now.Sub(e.At)),
			})
		}
	}
	if !o.LastSuccess.IsZero() {
		m.SinceSuccess = durationpb.New(now.Sub(o.LastSuccess))
	}
	if !o.LastAttempt.IsZero() {
		m.SinceAttempt = durationpb.New(now.Sub(o.LastAttempt))
	}
	if !o.Next.IsZero() {
		m.UntilNext = durationpb.New(o.Next.Sub(now))
	}
	return m
}

// Read decodes a message that arrives at now. An attempt never lies in the future, also where a member's clock was set
// back.
func Read(m *statev1.RelationshipObservation, member string, now time.Time) Observation {
	o := Observation{
		Generation: m.GetGeneration(), Member: member, Result: m.GetResult(), Error: m.GetError(),
		Interval: m.GetInterval().AsDuration(),
		Count:    MapCount{int(m.GetAccepted()), int(m.GetRefused()), int(m.GetLeftOut())},
	}
	for _, e := range m.GetEndpoints() {
		if e.GetIndex() < relationship.MaxEndpoints {
			for len(o.Endpoints) <= int(e.GetIndex()) {
				o.Endpoints = append(o.Endpoints, Attempt{})
			}
			at := now.Add(-max(0, e.GetSinceAttempt().AsDuration()))
			o.Endpoints[e.GetIndex()] = Attempt{at, e.GetResult(), e.GetError()}
		}
	}
	if m.SinceSuccess != nil {
		o.LastSuccess = now.Add(-max(0, m.GetSinceSuccess().AsDuration()))
	}
	if m.SinceAttempt != nil {
		o.LastAttempt = now.Add(-max(0, m.GetSinceAttempt().AsDuration()))
	}
	if m.UntilNext != nil {
		o.Next = now.Add(m.GetUntilNext().AsDuration())
	}
	return o
}
