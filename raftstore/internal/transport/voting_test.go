package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// A member that cannot keep a vote sends no request for one and refuses those of others; all else passes.
func TestVoting(t *testing.T) {
	full := errors.New("the disk of the data folder is full")
	var cannot error
	network := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: noStream{}})
	v := newVoting(newQuiet(network, Config{}), Config{
		CannotVote: func() error { return cannot }, Received: func(uint64) {},
	})

	for _, request := range []any{
		&raft.RequestVoteRequest{}, &raft.RequestPreVoteRequest{}, &raft.TimeoutNowRequest{},
	} {
		cannot = full
		require.EqualError(t, v.refuse(request), "this member does not vote: the disk of the data folder is full")
		cannot = nil
		require.NoError(t, v.refuse(request))
	}
	cannot = full
	require.NoError(t, v.refuse(&raft.AppendEntriesRequest{}), "it still follows")
	require.NoError(t, v.refuse(&raft.InstallSnapshotRequest{}))
	const held = "this member does not stand for election: the disk of the data folder is full"
	require.EqualError(t, v.RequestVote("m2", "m2:1", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{}), held)
	require.EqualError(t,
		v.RequestPreVote("m2", "m2:1", &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{}), held)
	cannot = nil
	require.ErrorIs(t, v.RequestVote("m2", "m2:1", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{}), io.EOF)
	require.NoError(t, v.Close())
	require.NoError(t, v.Close())
}

// noStream is a stream layer that reaches nobody.
type noStream struct{ net.Listener }

func (noStream) Accept() (net.Conn, error)                                { return nil, net.ErrClosed }
func (noStream) Close() error                                             { return nil }
func (noStream) Addr() net.Addr                                           { return &net.UnixAddr{} }
func (noStream) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) { return nil, io.EOF }

// Of two members that request a pre-vote of each other at once, one yields; and none does that has been answered.
func TestCrossingPreVotes(t *testing.T) {
	for _, c := range []struct {
		why             string
		own, candidate  raft.ServerID
		waiting, refuse bool
	}{
		{"the first in order goes on", "m1", "m2", true, true},
		{"the second yields", "m2", "m1", true, false},
		{"it was answered", "m1", "m2", false, false},
	} {
		network := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: noStream{}})
		v := newVoting(newQuiet(network, Config{}), Config{CannotVote: func() error { return nil }})
		v.stand(c.candidate, c.own)
		v.stand("m3", c.own) // which never answers
		if !c.waiting {
			v.stand(c.candidate, "")
		}
		header := raft.RPCHeader{ID: []byte(c.candidate)}
		err := v.refuse(&raft.RequestPreVoteRequest{RPCHeader: header})
		if c.refuse {
			require.EqualError(t, err, "this member stands for election at the same time", c.why)
		} else {
			require.NoError(t, err, c.why)
		}
		require.NoError(t, v.refuse(&raft.RequestVoteRequest{RPCHeader: header}), "a vote is Raft's to give")
		require.NoError(t, v.Close())
	}
}

// A request for a pre-vote counts until it is answered, with an error too.
func TestPreVoteIsAnswered(t *testing.T) {
	one, two := newVoter(t), newVoter(t)
	counts := make(chan bool, 1)
	two.asked = func() { counts <- one.precedes("m2") }
	request := func() error {
		return one.RequestPreVote("m2", two.LocalAddr(),
			&raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte("m1")}}, &raft.RequestPreVoteResponse{})
	}
	require.NoError(t, request())
	require.True(t, <-counts, "while it is answered")
	require.False(t, one.precedes("m2"))
	two.set(errors.New("full"))
	require.Error(t, request())
	require.False(t, one.precedes("m2"))
}

// voter is the transport of a member, with a Raft that answers everything.
type voter struct {
	*voting
	mu     sync.Mutex
	cannot error
	passed []string // the requests that Raft has received
	terms  []uint64 // of messages of a leader
	asked  func()   // if set, called before a pre-vote is answered
}

// newVoter returns a member that the others reach over the network.
func newVoter(t *testing.T) *voter {
	t.Helper()
	network, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, time.Minute, io.Discard)
	require.NoError(t, err)
	v := &voter{}
	v.voting = newVoting(newQuiet(network, Config{}), Config{
		CannotVote: func() error { v.mu.Lock(); defer v.mu.Unlock(); return v.cannot },
		Received:   func(term uint64) { v.mu.Lock(); defer v.mu.Unlock(); v.terms = append(v.terms, term) },
	})
	answer := func(rpc raft.RPC) {
		v.mu.Lock()
		v.passed = append(v.passed, fmt.Sprintf("%T", rpc.Command))
		v.mu.Unlock()
		switch rpc.Command.(type) {
		case *raft.RequestVoteRequest:
			rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
		case *raft.RequestPreVoteRequest:
			if v.asked != nil {
				v.asked()
			}
			rpc.Respond(&raft.RequestPreVoteResponse{Granted: true}, nil)
		case *raft.TimeoutNowRequest:
			rpc.Respond(&raft.TimeoutNowResponse{}, nil)
		default:
			rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
		}
	}
	v.SetHeartbeatHandler(answer)
	ended, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case rpc := <-v.Consumer():
				answer(rpc)
			case <-over:
				return
			}
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, v.Close())
		close(over)
		<-ended
	})
	return v
}

func (v *voter) set(cannot error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cannot = cannot
}

// received returns what Raft has received since the last call.
func (v *voter) received() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	passed := v.passed
	v.passed = nil
	return passed
}

// elect sends each message of an election from one member to another, and returns the errors.
func elect(from, to *voter) []error {
	var vote raft.RequestVoteResponse
	var preVote raft.RequestPreVoteResponse
	errs := []error{
		from.RequestPreVote("to", to.LocalAddr(), &raft.RequestPreVoteRequest{Term: 2}, &preVote),
		from.RequestVote("to", to.LocalAddr(), &raft.RequestVoteRequest{Term: 2}, &vote),
	}
	if vote.Granted != (errs[1] == nil) || preVote.Granted != (errs[0] == nil) {
		return append(errs, errors.New("a vote without an answer"))
	}
	return errs
}

// No message of an election passes a member that cannot keep a vote, in either direction, and all messages of a leader
// do. When the member can again, all pass.
func TestHeldVotes(t *testing.T) {
	held, other := newVoter(t), newVoter(t)
	elections := []string{"*raft.RequestPreVoteRequest", "*raft.RequestVoteRequest"}
	leads := func(entries ...*raft.Log) error {
		args := &raft.AppendEntriesRequest{Term: 3, Entries: entries}
		if len(entries) > 0 {
			args.PrevLogEntry, args.PrevLogTerm = 7, 2
		}
		return other.NetworkTransport.AppendEntries("to", held.LocalAddr(), args, &raft.AppendEntriesResponse{})
	}
	for _, fault := range []string{
		"the disk of the data folder is full", "the disk of the data folder hangs", "member stopped: EIO",
	} {
		held.set(errors.New(fault))
		for _, err := range elect(other, held) {
			require.EqualError(t, err, "this member does not vote: "+fault)
		}
		require.EqualError(t,
			other.TimeoutNow("to", held.LocalAddr(), &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}),
			"this member does not vote: "+fault, "leadership is not handed over to it")
		require.NoError(t, leads(), "a heartbeat")
		require.NoError(t, leads(&raft.Log{Index: 8, Term: 3}), "entries")
		require.Equal(t, []string{"*raft.AppendEntriesRequest", "*raft.AppendEntriesRequest"}, held.received())
		for _, err := range elect(held, other) {
			require.EqualError(t, err, "this member does not stand for election: "+fault)
		}
		require.Empty(t, other.received())

		held.set(nil)
		require.Equal(t, []error{nil, nil}, elect(other, held))
		require.Equal(t, elections, held.received())
		require.Equal(t, []error{nil, nil}, elect(held, other))
		require.Equal(t, elections, other.received())
		require.NoError(t,
			other.TimeoutNow("to", held.LocalAddr(), &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}))
		require.Equal(t, []string{"*raft.TimeoutNowRequest"}, held.received())
	}
	held.mu.Lock()
	defer held.mu.Unlock()
	require.Equal(t, []uint64{3, 3, 3, 3, 3, 3}, held.terms, "the leader is heard in any case")
}
