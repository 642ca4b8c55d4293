package raftstore

import (
	"slices"
	"strings"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// The scheduler's bounds.
const (
	// A command, and a log entry: larger ones would hold up Raft's heartbeats.
	maxCommand = 512 << 10
	// What a transaction may take of a command; the rest is for its ID.
	maxTransaction = maxCommand - 1024
	// How long a transaction that was rejected again has its keys to itself.
	holdTime = 200 * time.Millisecond
	// How many transactions can stand in line for their keys.
	maxHolds = 1024
	// How many commands wait at the leader, and for how long.
	maxWaiting  = 8192
	longestWait = 10 * time.Second
)

// scheduler decides, on the leader, which commands go into the next log entry, which are rejected because they are bound to
// fail, and which wait. It is pure: the clock and the state are given to it.
//
// A command waits while what it read is being written by an entry under way, or while what it writes is kept for a
// transaction that was rejected again. Such a transaction is told of its rejection only when its keys are free for it, in
// order of arrival; from then on nobody else writes them for holdTime, or until its next command is under way.
type scheduler struct {
	waiting []*proposal
	// known holds what waits or is under way, so that a command that is sent again joins the one that is there.
	known map[commandKey]*proposal
	// claims counts the commands under way that write a row, by table and key.
	claims map[string]map[string]int
	holds  []*hold
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
	// answers are called once each, with the outcome. There are several when the command was sent again.
	answers []func(*ententev1.ProposeResponse)
	// abandoned reports whether nobody waits for the answer any more.
	abandoned func() bool
}

type commandKey struct {
	member               string
	incarnation, counter uint64
}

func keyOf(id *statev1.CommandID) commandKey {
	return commandKey{id.GetMember(), id.GetIncarnation(), id.GetCounter()}
}

// hold keeps keys for a transaction.
type hold struct {
	by    commandKey
	reads *statev1.Transaction
	until time.Time // zero: it waits for its turn
	// rejected is told when its turn has come.
	rejected *proposal
}

// answer is what a proposal is told.
type answer struct {
	to       *proposal
	response *ententev1.ProposeResponse
}

func newScheduler() *scheduler {
	return &scheduler{known: map[commandKey]*proposal{}, claims: map[string]map[string]int{}}
}

// add takes a proposal in, unless too much waits already.
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

// plan decides on everything that waits. The commands of the entry are under way from then on, until done is called with
// them. It is to be called again at wake, if that is not zero, or when anything else happened.
func (q *scheduler) plan(now time.Time, s *state) (entry []*proposal, answers []answer, wake time.Time) {
	q.holds = slices.DeleteFunc(q.holds, func(h *hold) bool { return !h.until.IsZero() && !now.Before(h.until) })
	var kept []*proposal
	size := 0
	for i, p := range q.waiting {
		verdict := q.judge(p, s, now)
		switch {
		case verdict.response != nil:
			answers = append(answers, answer{p, verdict.response})
		case verdict.hold:
			q.enqueueHold(p)
		case verdict.wait:
			kept = append(kept, p)
		case size > 0 && size+len(p.raw)+entryOverhead > maxCommand:
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

// entryOverhead is what a command takes in an entry besides its own bytes.
const entryOverhead = 8

type verdict struct {
	response   *ententev1.ProposeResponse
	hold, wait bool
}

// judge decides on one proposal; the zero verdict means that it can go into an entry.
func (q *scheduler) judge(p *proposal, s *state, now time.Time) verdict {
	switch known, how := lookUp(s.sessions, p.command.GetId()); how {
	case recalled:
		return verdict{response: respond(known)}
	case forgotten:
		return verdict{response: respond(outcome{})}
	}
	t := p.command.GetTransaction()
	if t == nil {
		return verdict{}
	}
	switch {
	case now.Sub(p.arrived) > longestWait, p.abandoned():
		return verdict{response: &ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_BUSY}}
	case t.GetBase() > s.revision, q.claimed(t), q.heldFromOther(p):
		return verdict{wait: true}
	case failed(s.contents(), s.floors, t) == nil:
		return verdict{}
	case p.rejections > 0 && len(q.holds) < maxHolds:
		return verdict{hold: true}
	}
	return verdict{response: conflict(s.revision)}
}

// respond turns the outcome of an applied command into an answer.
func respond(o outcome) *ententev1.ProposeResponse {
	switch {
	case o.applied:
		return &ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_APPLIED, Revision: o.revision}
	case o.revision == 0:
		return &ententev1.ProposeResponse{
			Result:  ententev1.ProposeResponse_RESULT_INVALID,
			Message: "the command is older than what is remembered of its sender",
		}
	}
	return conflict(o.revision)
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

// claimed reports whether an entry under way writes what the transaction read.
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

// drain gives up everything that waits, because this member does not lead any more.
func (q *scheduler) drain() []*proposal {
	given := q.waiting
	for _, h := range q.holds {
		if h.until.IsZero() {
			given = append(given, h.rejected)
		}
	}
	for _, p := range given {
		delete(q.known, p.key)
	}
	q.waiting, q.holds = nil, nil
	return given
}
