package transport

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// voting keeps this member out of elections while it could not keep its vote: its own requests for votes are not sent,
// and those of others, and a transfer of the lead to it, are refused. The others elect a leader without it.
//
// It also lets one of two members yield that request a pre-vote of each other at the same time. Raft would let both go
// on: each votes for itself, and another election follows after a timeout or two.
type voting struct {
	*quiet
	// cannot returns why this member must not take part, or nil.
	cannot func() error
	// received is called with the term of each message of a leader.
	received func(term uint64)

	admitted chan raft.RPC
	over     chan struct{}
	once     sync.Once

	mu sync.Mutex
	// standing has this member's own ID, by the member that has not answered its request for a pre-vote.
	standing map[raft.ServerID]raft.ServerID
}

func newVoting(q *quiet, c Config) *voting {
	v := &voting{
		quiet: q, cannot: c.CannotVote, received: c.Received, admitted: make(chan raft.RPC), over: make(chan struct{}),
		standing: make(map[raft.ServerID]raft.ServerID),
	}
	go v.admit()
	return v
}

// RequestVote implements raft.Transport.
func (v *voting) RequestVote(
	id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse,
) error {
	if err := v.cannot(); err != nil {
		return fmt.Errorf("this member does not stand for election: %w", err)
	}
	return v.quiet.RequestVote(id, target, args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (v *voting) RequestPreVote(
	id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse,
) error {
	if err := v.cannot(); err != nil {
		return fmt.Errorf("this member does not stand for election: %w", err)
	}
	v.stand(id, raft.ServerID(args.ID))
	defer v.stand(id, "")
	return v.quiet.RequestPreVote(id, target, args, resp)
}

// stand records that this member, by its ID, waits for the pre-vote of another one. An empty ID ends that.
func (v *voting) stand(other, own raft.ServerID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if own == "" {
		delete(v.standing, other)
	} else {
		v.standing[other] = own
	}
}

// precedes reports whether this member waits for the pre-vote of a candidate, which is the one to yield: IDs decide. A
// member that does not get that pre-vote yields to the next request.
func (v *voting) precedes(candidate raft.ServerID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	own, stands := v.standing[candidate]
	return stands && own < candidate
}

// Consumer implements raft.Transport.
func (v *voting) Consumer() <-chan raft.RPC { return v.admitted }

// admit passes requests on to Raft until the transport is closed.
func (v *voting) admit() {
	received := v.quiet.Consumer()
	for {
		select {
		case <-v.over:
			return
		case rpc := <-received:
			v.hear(rpc)
			if err := v.refuse(rpc.Command); err != nil {
				rpc.Respond(nil, err)
				continue
			}
			select {
			case v.admitted <- rpc:
			case <-v.over:
				rpc.Respond(nil, raft.ErrTransportShutdown)
				return
			}
		}
	}
}

// SetHeartbeatHandler implements raft.Transport. Raft handles heartbeats apart from other requests.
func (v *voting) SetHeartbeatHandler(handle func(raft.RPC)) {
	v.quiet.SetHeartbeatHandler(func(rpc raft.RPC) {
		v.hear(rpc)
		handle(rpc)
	})
}

func (v *voting) hear(rpc raft.RPC) {
	if r, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
		v.received(r.Term)
	}
}

// refuse returns why a request is refused, or nil.
func (v *voting) refuse(command any) error {
	switch command.(type) {
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest, *raft.TimeoutNowRequest:
		if err := v.cannot(); err != nil {
			return fmt.Errorf("this member does not vote: %w", err)
		}
	}
	if r, ok := command.(*raft.RequestPreVoteRequest); ok && v.precedes(raft.ServerID(r.ID)) {
		return errors.New("this member stands for election at the same time")
	}
	return nil
}

// Close implements raft.WithClose.
func (v *voting) Close() error {
	v.once.Do(func() { close(v.over) })
	return v.quiet.Close()
}
