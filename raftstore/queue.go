package raftstore

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// queue is the loop around the scheduler: it takes commands in, hands entries to Raft, and answers. While entries are under
// way, commands gather for the next one; that is the group commit.
type queue struct {
	store *Store
	in    chan *proposal
	done  chan *underway
	// poke has the loop look again.
	poke chan struct{}
	// Those who were just answered tend to come back at once with their next command. The next entry waits for as many of them,
	// but no longer than until then, or it would take the first of them and leave the others to the one after it.
	expected    int
	gatherUntil time.Time
}

// underway is an entry on its way through Raft.
type underway struct {
	entry   []*proposal
	started time.Time
	future  raft.ApplyFuture
	err     error
}

// The entries under way at a time. One alone gathers the most while it is written: with more of them, commits were slower by a
// quarter with all writers on the leader, and more so with writers on every member (BenchmarkCommit).
const maxUnderway = 1

func newQueue(s *Store) *queue {
	return &queue{store: s, in: make(chan *proposal, 256), done: make(chan *underway, maxUnderway), poke: make(chan struct{}, 1)}
}

// submit hands a command over. Its answer is called from the loop and must not block. It reports false when the store closed.
func (q *queue) submit(p *proposal) bool {
	select {
	case q.in <- p:
		return true
	case <-q.store.closed:
		return false
	}
}

func (q *queue) run() {
	schedule := newScheduler()
	inFlight := 0
	lookedAt := uint64(0) // the revision after which the loop is going to be poked
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		_, changed := q.store.leadership.current()
		select {
		case p := <-q.in:
			q.take(schedule, p)
		case u := <-q.done:
			inFlight--
			q.finish(schedule, u)
		case <-changed:
		case <-q.poke:
		case <-timer.C:
		case <-q.store.closed:
			for inFlight > 0 {
				q.finish(schedule, <-q.done)
				inFlight--
			}
			q.turnAway(schedule)
			return
		}
		q.gather(schedule)
		if !q.store.IsLeader() {
			q.turnAway(schedule)
			continue
		}
		if wait := q.gathering(schedule); wait > 0 && inFlight == 0 {
			timer.Reset(wait)
			continue
		}
		for inFlight < maxUnderway {
			state := q.store.fsm.state()
			entry, answers, wake := schedule.plan(time.Now(), state)
			for _, a := range answers {
				q.store.metrics.rejected(a.response)
				a.to.answer(a.response)
			}
			switch {
			case !wake.IsZero():
				timer.Reset(time.Until(wake))
			case len(schedule.waiting) > 0 && inFlight == 0 && len(entry) == 0 && lookedAt <= state.revision:
				lookedAt = state.revision + 1
				q.pokeAt(lookedAt)
			}
			if len(entry) == 0 {
				break
			}
			inFlight++
			q.dispatch(entry)
		}
	}
}

// maxGather bounds how long an entry waits for company; an eighth of what the last one took is the other bound, so that the
// latency of a write that comes alone hardly changes.
const maxGather = time.Millisecond

// gathering returns for how long the next entry waits for more commands; zero: it does not.
func (q *queue) gathering(schedule *scheduler) time.Duration {
	if n := len(schedule.waiting); n == 0 || n >= q.expected {
		return 0
	}
	return max(0, time.Until(q.gatherUntil))
}

// gather takes what has arrived meanwhile.
func (q *queue) gather(schedule *scheduler) {
	for range cap(q.in) {
		select {
		case p := <-q.in:
			q.take(schedule, p)
		default:
			return
		}
	}
}

func (q *queue) take(schedule *scheduler, p *proposal) {
	if !schedule.add(p) {
		p.answer(&ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_BUSY})
	}
}

// pokeAt has the loop look again once this member has applied a revision: what waits was read from a later state than its own.
func (q *queue) pokeAt(revision uint64) {
	q.store.tasks.Go(func() {
		if q.store.fsm.progress.wait(q.store.ctx, revision) == nil {
			select {
			case q.poke <- struct{}{}:
			default:
			}
		}
	})
}

// dispatch hands an entry to Raft. It waits while Raft writes the one before.
func (q *queue) dispatch(entry []*proposal) {
	data := protowire.AppendTag(nil, 1, protowire.VarintType)
	data = protowire.AppendVarint(data, uint64(q.store.commandVersion.Load()))
	for _, p := range entry {
		data = protowire.AppendTag(data, 3, protowire.BytesType)
		data = protowire.AppendBytes(data, p.raw)
	}
	u := &underway{entry: entry, started: time.Now(), future: q.store.raft.Apply(data, 0)}
	// The loop waits for it, also when the store is closed.
	go func() {
		u.err = q.store.await(u.future)
		q.done <- u
	}()
}

// finish answers the commands of an entry.
func (q *queue) finish(schedule *scheduler, u *underway) {
	schedule.done(u.entry)
	q.expected = len(u.entry)
	q.gatherUntil = time.Now().Add(min(maxGather, time.Since(u.started)/8))
	outcomes, ok := []outcome(nil), false
	if u.err == nil {
		outcomes, ok = u.future.Response().([]outcome)
	}
	for i, p := range u.entry {
		switch {
		case ok:
			p.answer(respond(outcomes[i]))
		case errors.Is(u.err, raft.ErrNotLeader), errors.Is(u.err, raft.ErrLeadershipTransferInProgress):
			p.answer(&ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_NOT_LEADER})
		default:
			p.answer(&ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_UNKNOWN})
		}
	}
	if ok {
		q.store.metrics.committed(outcomes, time.Since(u.started))
	}
}

// turnAway answers everything that waits: this member does not lead.
func (q *queue) turnAway(schedule *scheduler) {
	q.gather(schedule)
	for _, p := range schedule.drain() {
		p.answer(&ententev1.ProposeResponse{Result: ententev1.ProposeResponse_RESULT_NOT_LEADER})
	}
}

func (p *proposal) answer(r *ententev1.ProposeResponse) {
	for _, answer := range p.answers {
		answer(r)
	}
	p.answers = nil
}
