// Package quorum proves that this member leads.
//
// Raft's own verification is not such a proof: it counts an answer that arrives after the verification began, even if
// the request was sent, and answered, long before. A leader that was paused for longer than an election finds such
// answers when it resumes. Raft also counts the answers of servers without a vote. So the transport records here which
// request each server has acknowledged, and a lead is proved once a majority of the voters has acknowledged requests
// that were sent after the proof began: a voter that has elected another leader by then refuses them.
package quorum

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// Acks is the latest request that each server has acknowledged. It compares requests by counting the proofs that had
// begun when they were sent, so that no clock is involved.
type Acks struct {
	mu      sync.Mutex
	begun   uint64 // how many proofs have begun
	latest  map[raft.ServerID]ack
	changed chan struct{} // closed and replaced on every change
}

// ack is that a request of a term was acknowledged, which was sent after so many proofs had begun.
type ack struct{ term, sentAfter uint64 }

// NewAcks returns an Acks without any.
func NewAcks() *Acks {
	return &Acks{latest: map[raft.ServerID]ack{}, changed: make(chan struct{})}
}

// Sending is called right before a request of a term is sent to a server. The function that it returns is called when
// the server has acknowledged it.
func (a *Acks) Sending(to raft.ServerID, term uint64) (acknowledged func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	sent := ack{term: term, sentAfter: a.begun}
	return func() { a.record(to, sent) }
}

func (a *Acks) record(from raft.ServerID, sent ack) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !newer(a.latest[from], sent) {
		return
	}
	a.latest[from] = sent
	close(a.changed)
	a.changed = make(chan struct{})
}

// newer reports whether an acknowledgment proves more than the one that is known. Requests to one server are answered
// on several connections, in any order.
func newer(known, next ack) bool {
	return next.term > known.term || next.term == known.term && next.sentAfter > known.sentAfter
}

// Proof is one proof that this member leads in a term.
type Proof struct {
	acks    *Acks
	term    uint64
	number  uint64
	self    raft.ServerID
	servers []raft.Server
}

// Begin begins a proof. Only requests that are sent from now on count for it. servers is the latest configuration of
// this member.
func (a *Acks) Begin(term uint64, self raft.ServerID, servers []raft.Server) Proof {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun++
	return Proof{acks: a, term: term, number: a.begun, self: self, servers: servers}
}

// Await returns nil once a majority has acknowledged, or the error of ctx.
func (p Proof) Await(ctx context.Context) error {
	for {
		p.acks.mu.Lock()
		proved := majority(p.self, p.servers, func(id raft.ServerID) bool {
			latest := p.acks.latest[id]
			return latest.term == p.term && latest.sentAfter >= p.number
		})
		changed := p.acks.changed
		p.acks.mu.Unlock()
		if proved {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// majority reports whether more than half of the voters have acknowledged. This member counts as one that has, if it
// has a vote.
func majority(self raft.ServerID, servers []raft.Server, acknowledged func(raft.ServerID) bool) bool {
	voters, agree := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == self || acknowledged(s.ID) {
			agree++
		}
	}
	return 2*agree > voters
}
