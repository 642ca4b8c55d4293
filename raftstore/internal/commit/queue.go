// Package commit is the leader's queue of commands. It decides which commands share a log entry (scheduler.go), and
// rejects those that are bound to fail before they cost one.
//
// While an entry is under way, commands gather for the next one; that is the group commit. A transaction that was
// rejected again has its keys reserved for a moment (reservation.go), so that none starves.
package commit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// Log is the Raft log that the queue writes to, as this member sees it.
type Log interface {
	// Leads reports whether this member leads and has applied everything that was acknowledged before.
	Leads() bool
	// Changed returns a channel that is closed when that may have changed.
	Changed() <-chan struct{}
	// Propose hands an entry to Raft, and may wait while Raft writes the one before. The function that it returns waits
	// for the entry to be applied; its outcomes are nil if it was not.
	Propose(entry []byte) (wait func() ([]machine.Outcome, error))
	// CommandVersion is the version that the entry announces.
	CommandVersion() uint32
}

// Observer receives what happens, for metrics. It is called from the loop.
type Observer interface {
	Rejected(*ententev1.ProposeResponse)
	Committed(outcomes []machine.Outcome, took time.Duration)
}

// Queue is the loop around the scheduler: it accepts commands, hands entries to Raft, and answers.
type Queue struct {
	log     Log
	machine *machine.Machine
	observe Observer
	closed  <-chan struct{}

	in   chan *proposal
	done chan *inFlight
	// again makes the loop plan again.
	again chan struct{}
	// Callers that were just answered tend to return at once with their next command. The next entry waits for as many
	// of them, but no longer than until then; without this it would contain the first of them and leave the others to
	// the one after it.
	expected    int
	gatherUntil time.Time
}

// inFlight is an entry on its way through Raft.
type inFlight struct {
	entry    []*proposal
	started  time.Time
	outcomes []machine.Outcome
	err      error
}

const (
	// maxInFlight is how many entries are under way at a time. One alone gathers the most while it is written: with
	// more, commits were slower by a quarter with all writers on the leader, and more so with writers on every member
	// (BenchmarkCommit).
	maxInFlight = 1
	// maxGather limits how long an entry waits for company; an eighth of what the last one took is the other limit, so
	// that the latency of a single write hardly changes.
	maxGather = time.Millisecond
)

// New returns a queue, which accepts commands until closed is closed.
func New(log Log, m *machine.Machine, observe Observer, closed <-chan struct{}) *Queue {
	return &Queue{
		log: log, machine: m, observe: observe, closed: closed,
		in: make(chan *proposal, 256), done: make(chan *inFlight, maxInFlight), again: make(chan struct{}, 1),
	}
}

// ErrClosed is returned by [Queue.Propose] when the queue is closed.
var ErrClosed = errors.New("the commit queue is closed")

// Propose hands a command to the queue and waits for the answer. raw is the encoded command.
func (q *Queue) Propose(
	ctx context.Context, c *statev1.Command, raw []byte, r *ententev1.ProposeRequest,
) (*ententev1.ProposeResponse, error) {
	answers := make(chan *ententev1.ProposeResponse, 1)
	by := keyOf(c.GetId())
	by.counter = r.GetTransaction()
	p := &proposal{
		key: keyOf(c.GetId()), command: c, raw: raw, by: by, rejections: r.GetRejections(), arrived: time.Now(),
		abandoned: func() bool { return ctx.Err() != nil },
		answers:   []func(*ententev1.ProposeResponse){func(r *ententev1.ProposeResponse) { answers <- r }},
	}
	select {
	case q.in <- p:
	case <-q.closed:
		return nil, ErrClosed
	}
	select {
	case r := <-answers:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-q.closed:
		return nil, ErrClosed
	}
}

// Run is the loop of the queue. It ends when the queue is closed, after the entries under way.
func (q *Queue) Run() {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	schedule := newScheduler()
	underway := 0
	awaited := uint64(0) // the revision after which the loop plans again
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := q.log.Changed()
		select {
		case p := <-q.in:
			q.add(schedule, p)
		case f := <-q.done:
			underway--
			q.finish(schedule, f)
		case <-changed:
		case <-q.again:
		case <-timer.C:
		case <-q.closed:
			for ; underway > 0; underway-- {
				q.finish(schedule, <-q.done)
			}
			q.turnAway(schedule)
			return
		}
		q.gather(schedule)
		if !q.log.Leads() {
			q.turnAway(schedule)
			continue
		}
		if wait := q.gathering(schedule); wait > 0 && underway == 0 {
			timer.Reset(wait)
			continue
		}
		for underway < maxInFlight {
			state := q.machine.State()
			entry, answers, wake := schedule.plan(time.Now(), state)
			for _, a := range answers {
				q.observe.Rejected(a.response)
				a.to.answer(a.response)
			}
			switch {
			case !wake.IsZero():
				timer.Reset(time.Until(wake))
			case len(schedule.waiting) > 0 && underway == 0 && len(entry) == 0 && awaited <= state.Revision:
				next := state.Revision + 1
				awaited = next
				waiting.Go(func() { q.planAfter(ctx, next) })
			}
			if len(entry) == 0 {
				break
			}
			underway++
			q.dispatch(entry)
		}
	}
}

// gathering returns how long the next entry waits for more commands.
func (q *Queue) gathering(schedule *scheduler) time.Duration {
	if n := len(schedule.waiting); n == 0 || n >= q.expected {
		return 0
	}
	return max(0, time.Until(q.gatherUntil))
}

// gather adds the commands that have arrived meanwhile.
func (q *Queue) gather(schedule *scheduler) {
	for range cap(q.in) {
		select {
		case p := <-q.in:
			q.add(schedule, p)
		default:
			return
		}
	}
}

func (q *Queue) add(schedule *scheduler, p *proposal) {
	if !schedule.add(p) {
		p.answer(&ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_BUSY})
	}
}

// planAfter makes the loop plan again once this member has applied a revision: what waits was read from a later state.
func (q *Queue) planAfter(ctx context.Context, revision uint64) {
	if q.machine.Progress.Wait(ctx, revision) == nil {
		select {
		case q.again <- struct{}{}:
		default:
		}
	}
}

// dispatch hands an entry to Raft.
func (q *Queue) dispatch(entry []*proposal) {
	data := encodeEntry(entry, q.log.CommandVersion())
	f := &inFlight{entry: entry, started: time.Now()}
	wait := q.log.Propose(data)
	go func() { // the loop waits for it, also when the queue is closed
		f.outcomes, f.err = wait()
		q.done <- f
	}()
}

// encodeEntry encodes an entry. The commands are those that were received, byte by byte: their checksums cover them.
func encodeEntry(entry []*proposal, allowed uint32) []byte {
	data := protowire.AppendTag(nil, 1, protowire.VarintType)
	data = protowire.AppendVarint(data, uint64(entryVersion(entry, allowed)))
	for _, p := range entry {
		data = protowire.AppendTag(data, 3, protowire.BytesType)
		data = protowire.AppendBytes(data, p.raw)
	}
	return data
}

// entryVersion returns the version of an entry: that which every member applies, or an older one if a command of an
// older member has no checksum.
func entryVersion(entry []*proposal, allowed uint32) uint32 {
	for _, p := range entry {
		if sealed, _ := machine.CheckSeal(p.raw); !sealed {
			return min(allowed, machine.SealedVersion-1)
		}
	}
	return allowed
}

// finish answers the commands of an entry.
func (q *Queue) finish(schedule *scheduler, f *inFlight) {
	schedule.done(f.entry)
	took := time.Since(f.started)
	q.expected = len(f.entry)
	q.gatherUntil = time.Now().Add(min(maxGather, took/8))
	for i, p := range f.entry {
		switch {
		case f.err == nil && f.outcomes != nil:
			p.answer(respond(f.outcomes[i]))
		case errors.Is(f.err, raft.ErrNotLeader), errors.Is(f.err, raft.ErrLeadershipTransferInProgress):
			p.answer(&ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_NOT_LEADER})
		default:
			p.answer(&ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_UNKNOWN})
		}
	}
	if f.err == nil && f.outcomes != nil {
		q.observe.Committed(f.outcomes, took)
	}
}

// turnAway answers everything that waits: this member does not lead.
func (q *Queue) turnAway(schedule *scheduler) {
	q.gather(schedule)
	for _, p := range schedule.drain() {
		p.answer(&ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_NOT_LEADER})
	}
}
