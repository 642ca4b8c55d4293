package commit

import (
	"slices"
	"strings"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

const (
	// reservationTime is how long a transaction that was rejected again has its keys to itself.
	reservationTime = 200 * time.Millisecond
	// maxReservations is how many transactions can wait for their keys.
	maxReservations = 1024
	// maxWaiting is how many commands can wait at the leader.
	maxWaiting = 8192
	// entryOverhead is what a command takes in an entry besides its own bytes.
	entryOverhead = 8
)

// LongestWait is how long a command can wait at the leader.
const LongestWait = 10 * time.Second

// scheduler decides, on the leader, which commands go into the next log entry, which are rejected because they are
// bound to fail, and which wait. It is pure: clock and state are arguments.
//
// A command waits while an entry under way writes what it has read, or while what it writes is reserved for a
// transaction that was rejected again. Such a transaction receives its rejection only when its keys are free, in order
// of arrival; from then on no other writes them for reservationTime, or until its next command is under way.
type scheduler struct {
	waiting []*proposal
	// known holds what waits or is under way, so that a command that arrives again joins the one that is there.
	known map[commandKey]*proposal
	// claims counts the commands under way that write a row, by table and key.
	claims       map[string]map[string]int
	reservations []*reservation
}

// proposal is one command at the leader.
type proposal struct {
	key     commandKey
	command *statev1.Command
	raw     []byte
	// by names the transaction over its attempts; rejections counts those before this one.
	by         commandKey
	rejections uint32
	arrived    time.Time
	// answers are called once each, with the outcome. There are several if the command arrived again.
	answers []func(*ententev1.ProposeResponse)
	// abandoned reports whether nothing waits for the answer any more.
	abandoned func() bool
}

func (p *proposal) answer(r *ententev1.ProposeResponse) {
	for _, answer := range p.answers {
		answer(r)
	}
	p.answers = nil
}

type commandKey struct {
	member               string
	incarnation, counter uint64
}

func keyOf(id *statev1.CommandID) commandKey {
	return commandKey{id.GetMember(), id.GetIncarnation(), id.GetCounter()}
}

// answer is the response to a proposal.
type answer struct {
	to       *proposal
	response *ententev1.ProposeResponse
}

func newScheduler() *scheduler {
	return &scheduler{known: map[commandKey]*proposal{}, claims: map[string]map[string]int{}}
}

// add adds a proposal, unless too many wait already.
func (q *scheduler) add(p *proposal) bool {
	if same, ok := q.known[p.key]; ok {
		same.answers = append(same.answers, p.answers...)
		same.abandoned = p.abandoned
		return true
	}
	if len(q.known) >= maxWaiting {
		return false
	}
	q.known[p.key] = p
	q.waiting = append(q.waiting, p)
	return true
}

// plan decides on everything that waits. The commands of the entry are under way from then on, until done is called
// with them. plan must be called again at wake, if that is not zero, and when anything else has happened.
func (q *scheduler) plan(now time.Time, s *machine.State) (entry []*proposal, answers []answer, wake time.Time) {
	q.reservations = slices.DeleteFunc(q.reservations, func(r *reservation) bool {
		return r.granted() && !now.Before(r.until)
	})
	var kept []*proposal
	size := 0
	for i, p := range q.waiting {
		verdict := q.judge(p, s, now)
		switch {
		case verdict.response != nil:
			answers = append(answers, answer{p, verdict.response})
		case verdict.reserve:
			q.reserve(p)
		case verdict.wait:
			kept = append(kept, p)
		case size > 0 && size+len(p.raw)+entryOverhead > machine.MaxCommand:
			kept = append(kept, q.waiting[i:]...)
		default:
			size += len(p.raw) + entryOverhead
			entry = append(entry, p)
			q.release(p.by)
			q.claim(p, 1)
			continue
		}
		if len(kept) > 0 && kept[len(kept)-1] == q.waiting[len(q.waiting)-1] {
			break
		}
	}
	q.waiting = kept
	answers = append(answers, q.grant(now, s)...)
	for _, a := range answers {
		delete(q.known, a.to.key)
	}
	return entry, answers, q.wake()
}

type verdict struct {
	response      *ententev1.ProposeResponse
	reserve, wait bool
}

// judge decides on one proposal; the zero verdict means that it can go into an entry.
func (q *scheduler) judge(p *proposal, s *machine.State, now time.Time) verdict {
	if known, recall := s.Recall(p.command.GetId()); recall != machine.Unknown {
		return verdict{response: respond(known)}
	}
	t := p.command.GetTransaction()
	if t == nil {
		return verdict{}
	}
	switch {
	case now.Sub(p.arrived) > LongestWait, p.abandoned():
		return verdict{response: &ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_BUSY}}
	case t.GetBase() > s.Revision, q.claimed(t), q.reservedByOther(p):
		return verdict{wait: true}
	case s.Failed(t) == nil:
		return verdict{}
	case p.rejections > 0 && len(q.reservations) < maxReservations:
		return verdict{reserve: true}
	}
	return verdict{response: conflict(s.Revision)}
}

// respond turns the outcome of a command into a response.
func respond(o machine.Outcome) *ententev1.ProposeResponse {
	switch {
	case o.Applied:
		return &ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_APPLIED, Revision: o.Revision}
	case o.Revision == 0:
		return &ententev1.ProposeResponse{
			Result:  ententev1.ProposeResponse_RESULT_INVALID,
			Message: "the command is older than what is remembered of its sender",
		}
	}
	return conflict(o.Revision)
}

func conflict(revision uint64) *ententev1.ProposeResponse {
	return &ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_CONFLICT, Revision: revision}
}

// claim counts what a command writes, by +1 when it gets under way and by -1 when it is done.
func (q *scheduler) claim(p *proposal, by int) {
	for _, c := range p.command.GetTransaction().GetChanges() {
		keys := q.claims[c.GetTable()]
		if keys == nil {
			keys = map[string]int{}
			q.claims[c.GetTable()] = keys
		}
		if keys[c.GetKey()] += by; keys[c.GetKey()] == 0 {
			delete(keys, c.GetKey())
		}
	}
}

// claimed reports whether an entry under way writes what the transaction has read.
func (q *scheduler) claimed(t *statev1.Transaction) bool {
	for _, c := range t.GetRows() {
		if q.claims[c.GetTable()][c.GetKey()] > 0 {
			return true
		}
	}
	for _, c := range t.GetPrefixes() {
		for key := range q.claims[c.GetTable()] {
			if strings.HasPrefix(key, c.GetPrefix()) {
				return true
			}
		}
	}
	return false
}

// done ends the commands of an entry.
func (q *scheduler) done(entry []*proposal) {
	for _, p := range entry {
		q.claim(p, -1)
		delete(q.known, p.key)
	}
}

// drain removes and returns everything that waits, because this member does not lead any more.
func (q *scheduler) drain() []*proposal {
	drained := q.waiting
	for _, r := range q.reservations {
		if !r.granted() {
			drained = append(drained, r.rejected)
		}
	}
	for _, p := range drained {
		delete(q.known, p.key)
	}
	q.waiting, q.reservations = nil, nil
	return drained
}
