package federation

import (
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// Section is the name under which [Observations] go with the heartbeats.
	Section = "federation"
	// maxReport bounds the observations of one heartbeat, and maxAnswer those of one answer; each is at most some 2,500 bytes, so
	// that both stay well below the 4 MiB of a gRPC message. What does not fit goes with the next.
	maxReport = 500
	maxAnswer = 1000
)

// observation is the latest that is known of the fetching of one relationship.
type observation struct {
	generation  uint64
	member      string
	lastSuccess time.Time
	lastAttempt time.Time
	// next is when the owner fetches again; zero where the member does not own it.
	next     time.Time
	interval time.Duration
	result   string
	err      string
	// endpoints is what came of each, where there are several. It is shared, and never changed.
	endpoints []endpointAttempt
	// count is what became of the domains in a hub's map, where the observation is of one.
	count mapCount
}

// Observations is what a member knows of its own fetching, and on the leader what every member has told it. None of it is
// replicated. It is the section of this room in the members' heartbeats.
type Observations struct {
	member string
	now    func() time.Time

	mu    sync.Mutex
	own   map[string]observation
	dirty map[string]bool
	// heard is the leader's memory: by trust domain the latest of every member's. leading is since when it leads.
	heard   map[string]observation
	leading time.Time
}

func newObservations(member string, now func() time.Time) *Observations {
	return &Observations{
		member: member, now: now,
		own: make(map[string]observation), dirty: make(map[string]bool), heard: make(map[string]observation),
	}
}

// attempted records what came of an attempt. succeeded says whether it confirmed the stored bundle or replaced it.
func (o *Observations) attempted(name string, generation uint64, at time.Time, succeeded bool, result, failure string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.own[name]
	was.generation, was.lastAttempt, was.result = generation, at, result
	was.err = relationship.Clip(failure)
	if succeeded {
		was.lastSuccess = at
	}
	o.own[name] = was
	o.dirty[name] = true
}

// tried records what is known of the endpoints of a relationship that has several.
func (o *Observations) tried(name string, generation uint64, endpoints []endpointAttempt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.own[name]
	was.generation, was.endpoints = generation, endpoints
	o.own[name] = was
	o.dirty[name] = true
}

// counted records what became of the domains in a hub's map.
func (o *Observations) counted(name string, count mapCount) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.own[name]
	was.count = count
	o.own[name] = was
	o.dirty[name] = true
}

// planned records when the owner fetches next.
func (o *Observations) planned(name string, generation uint64, next time.Time, interval time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.own[name]
	was.generation, was.next, was.interval = generation, next, interval
	o.own[name] = was
	o.dirty[name] = true
}

// disowned forgets a relationship that this member no longer fetches.
func (o *Observations) disowned(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.own, name)
	delete(o.dirty, name)
}

func (o *Observations) get(name string) (observation, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen, ok := o.own[name]
	return seen, ok
}

// Collect returns what changed since the last call, or everything that this member knows if full is set; in parts, where it is much.
func (o *Observations) Collect(full bool) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if full {
		for name := range o.own {
			o.dirty[name] = true
		}
	}
	if len(o.dirty) == 0 {
		return nil
	}
	now := o.now()
	report := &statev1.RelationshipReport{}
	for name := range o.dirty {
		if len(report.Observations) == maxReport {
			break
		}
		seen := o.own[name]
		report.Observations = append(report.Observations, seen.message(name, now))
		delete(o.dirty, name)
		if _, isMap := hubOfObservation(name); seen.next.IsZero() && !isMap && seen.result != resultConfirmed {
			// It was fetched by hand on a member that does not own it: told once. What a stream to this member confirms is told to the next
			// leader too: nobody else has seen it.
			delete(o.own, name)
		}
	}
	encoded, err := proto.Marshal(report)
	if err != nil {
		return nil // a message of our own making with valid UTF-8 always encodes; see clip
	}
	return encoded
}

// Deliver takes over what a member reports, on the leader. A report that does not decode is ignored: its relationships count as
// not heard of.
func (o *Observations) Deliver(member string, report []byte) {
	message := &statev1.RelationshipReport{}
	if proto.Unmarshal(report, message) != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	for _, m := range message.GetObservations() {
		o.heard[m.GetTrustDomain()] = merge(o.heard[m.GetTrustDomain()], observed(m, member, now))
	}
}

// merge joins what two members, or one at two times, know of a relationship: the latest attempt, and the latest success whoever made
// it. Only its owner knows of a next turn.
func merge(was, is observation) observation {
	out := is
	if was.lastAttempt.After(is.lastAttempt) {
		out = was
	}
	if is.next.IsZero() {
		out.next, out.interval = was.next, was.interval
	} else {
		out.next, out.interval = is.next, is.interval
	}
	out.generation = max(was.generation, is.generation)
	out.lastSuccess = is.lastSuccess
	if was.lastSuccess.After(is.lastSuccess) {
		out.lastSuccess = was.lastSuccess
	}
	return out
}

// Answer tells what the leader heard, for a [statev1.RelationshipQuery].
func (o *Observations) Answer(query []byte) ([]byte, error) {
	q := &statev1.RelationshipQuery{}
	if err := proto.Unmarshal(query, q); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	answer := &statev1.RelationshipAnswer{}
	now := o.now()
	if name := q.GetTrustDomain(); name != "" {
		if seen, ok := o.heard[name]; ok {
			answer.Observations = append(answer.Observations, seen.message(name, now))
		}
		return proto.Marshal(answer)
	}
	names := make([]string, 0, len(o.heard))
	for name := range o.heard {
		if name > q.GetAfter() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > maxAnswer {
		names, answer.More = names[:maxAnswer], true
	}
	for _, name := range names {
		answer.Observations = append(answer.Observations, o.heard[name].message(name, now))
	}
	return proto.Marshal(answer)
}

// Reset forgets what other members told, when this one begins to lead: it was told to it in an earlier lead, if ever.
func (o *Observations) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.heard)
	o.leading = o.now()
}

// success returns the last success of which the leader heard; zero: none.
func (o *Observations) success(name string) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.heard[name].lastSuccess
}

// listening returns since when this member has been listening as the leader.
func (o *Observations) listening() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.leading
}

// ended drops what was heard of a relationship that has ended, and what this member saw of it without owning it.
func (o *Observations) ended(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.own[name].next.IsZero() {
		delete(o.own, name)
		delete(o.dirty, name)
	}
	delete(o.heard, name)
	delete(o.heard, name+relationship.MapSuffix)
}

// sweep drops what was heard of relationships that do not exist. exists is called without the lock, for the catalog's is held by those who
// ask for successes.
func (o *Observations) sweep(exists func(name string) bool) {
	o.mu.Lock()
	heard := slices.Collect(maps.Keys(o.heard))
	o.mu.Unlock()
	for _, observed := range heard {
		if name, _ := hubOfObservation(observed); !exists(name) {
			o.ended(name)
		}
	}
}

func (s observation) message(name string, now time.Time) *statev1.RelationshipObservation {
	m := &statev1.RelationshipObservation{
		TrustDomain: name, Generation: s.generation, Member: s.member, Result: s.result, Error: s.err,
		Interval: durationpb.New(s.interval), Taken: uint32(s.count.taken), Refused: uint32(s.count.refused), LeftOut: uint32(s.count.leftOut), //nolint:gosec // at most MaxMapDomains
	}
	for i, e := range s.endpoints {
		if !e.at.IsZero() {
			m.Endpoints = append(m.Endpoints, &statev1.EndpointObservation{
				Index: uint32(i), Result: e.result, Error: e.err, SinceAttempt: durationpb.New(now.Sub(e.at)), //nolint:gosec // at most maxEndpoints
			})
		}
	}
	if !s.lastSuccess.IsZero() {
		m.SinceSuccess = durationpb.New(now.Sub(s.lastSuccess))
	}
	if !s.lastAttempt.IsZero() {
		m.SinceAttempt = durationpb.New(now.Sub(s.lastAttempt))
	}
	if !s.next.IsZero() {
		m.UntilNext = durationpb.New(s.next.Sub(now))
	}
	return m
}

// observed reads a message on arrival at now. Nobody succeeds in the future, whatever a clock that was set back makes of it.
func observed(m *statev1.RelationshipObservation, member string, now time.Time) observation {
	s := observation{
		generation: m.GetGeneration(), member: member, result: m.GetResult(), err: m.GetError(),
		interval: m.GetInterval().AsDuration(), count: mapCount{int(m.GetTaken()), int(m.GetRefused()), int(m.GetLeftOut())},
	}
	for _, e := range m.GetEndpoints() {
		if e.GetIndex() < relationship.MaxEndpoints {
			for len(s.endpoints) <= int(e.GetIndex()) {
				s.endpoints = append(s.endpoints, endpointAttempt{})
			}
			s.endpoints[e.GetIndex()] = endpointAttempt{now.Add(-max(0, e.GetSinceAttempt().AsDuration())), e.GetResult(), e.GetError()}
		}
	}
	if m.SinceSuccess != nil {
		s.lastSuccess = now.Add(-max(0, m.GetSinceSuccess().AsDuration()))
	}
	if m.SinceAttempt != nil {
		s.lastAttempt = now.Add(-max(0, m.GetSinceAttempt().AsDuration()))
	}
	if m.UntilNext != nil {
		s.next = now.Add(m.GetUntilNext().AsDuration())
	}
	return s
}
