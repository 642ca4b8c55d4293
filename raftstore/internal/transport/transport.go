// Package transport carries Raft's messages between members over a stream layer.
//
// It can be closed for good at any time, which ends every connection, and it suppresses the messages by which a leader
// would repeat to an idle follower what that has acknowledged already (quiet.go). It keeps a member out of elections
// while the member could not keep its vote (voting.go).
package transport

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/ententehq/entente/raftstore/internal/quorum"
)

// rpcTimeout bounds one call between members; sending a snapshot has more, by its size.
const rpcTimeout = 10 * time.Second

// Config describes a transport.
type Config struct {
	// Stream connects the members. If nil, the member is alone. If it is also a raft.ServerAddressProvider, that
	// chooses the address that its Dial receives.
	Stream raft.StreamLayer
	// Address is where the other members reach this one.
	Address string
	// News wakes the transport when there is something to send.
	News *News
	// Position returns the last index of the log, and the commit index.
	Position func() (last, commit uint64)
	// CannotVote returns why this member must take no part in elections at the moment, or nil.
	CannotVote func() error
	// Handshake begins every connection.
	Handshake Handshake
	// Received is called with the term of each message of a leader, from any goroutine.
	Received func(term uint64)
	// Acks records which messages the others have acknowledged.
	Acks *quorum.Acks
	// Acknowledged is called when another member has stored the entries up to an index.
	Acknowledged func(id raft.ServerID, index uint64)
	Logger       hclog.Logger
}

// New returns a transport.
func New(c Config) raft.Transport {
	if c.Stream == nil {
		_, t := raft.NewInmemTransport(raft.ServerAddress(c.Address))
		return t
	}
	// A stream layer that verifies the other end needs the server's ID, besides its address. If there is no provider,
	// Raft uses its own addresses.
	provider, _ := c.Stream.(raft.ServerAddressProvider)
	network := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                &gate{StreamLayer: c.Stream, handshake: c.Handshake, open: map[net.Conn]struct{}{}},
		ServerAddressProvider: provider,
		Logger:                c.Logger.Named("raft-net"),
		// One connection each for heartbeats, entries and a vote at the same time.
		MaxPool: 3,
		// Pipelined entries can leave a follower wedged after a stall; group commit compensates for pipelining.
		MaxRPCsInFlight: 1,
		Timeout:         rpcTimeout,
	})
	return newVoting(newQuiet(network, c), c)
}

// Close closes a transport, which is then closed for good.
func Close(t raft.Transport) error {
	if c, ok := t.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// gate is a stream layer that ends every connection when it is closed, and opens none afterwards. Raft's transport by
// itself only stops listening, and goes on sending heartbeats over the connections it has: a leader with a hung disk
// would keep its leadership for as long as its process lives.
type gate struct {
	raft.StreamLayer
	handshake Handshake
	mu        sync.Mutex
	closed    bool
	open      map[net.Conn]struct{}
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	c, err := g.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	if c, err = g.admit(c); err != nil {
		return nil, err
	}
	return &greetedConn{Conn: c, handshake: g.handshake}, nil
}

// Dial implements raft.StreamLayer.
func (g *gate) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	c, err := g.StreamLayer.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	if c, err = g.admit(c); err != nil {
		return nil, err
	}
	if err := g.handshake.dialed(c, timeout); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (g *gate) admit(c net.Conn) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	g.open[c] = struct{}{}
	return &gatedConn{Conn: c, gate: g}, nil
}

// Close ends everything. Raft calls it again when it shuts down.
func (g *gate) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	open := g.open
	g.open = nil
	g.mu.Unlock()
	for c := range open {
		_ = c.Close() // unsent data is of no use any more
	}
	return g.StreamLayer.Close()
}

// Unwrap returns the connection of the stream layer.
func (c *gatedConn) Unwrap() net.Conn { return c.Conn }

type gatedConn struct {
	net.Conn
	gate *gate
}

// Close implements net.Conn.
func (c *gatedConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.open, c.Conn)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
