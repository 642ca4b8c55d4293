package raftstore

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// rpcTimeout bounds one call between members; sending a snapshot has more, by its size.
const rpcTimeout = 10 * time.Second

// newTransport puts Raft's messages on the stream layer of the configuration.
func (s *Store) newTransport() raft.Transport {
	if s.config.Stream == nil {
		_, t := raft.NewInmemTransport(raft.ServerAddress(s.config.Address))
		return t
	}
	// A stream layer that checks who answers needs to know which server is meant, and not only where it is.
	// Nil, for one that does not care, leaves Raft with its own addresses.
	provider, _ := s.config.Stream.(raft.ServerAddressProvider)
	return newQuiet(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                &gate{StreamLayer: s.config.Stream, open: map[net.Conn]struct{}{}},
		ServerAddressProvider: provider,
		Logger:                s.log.Named("raft-net"),
		// One connection each for heartbeats, entries and a vote at the same time.
		MaxPool: 3,
		// Pipelined entries can leave a follower wedged after a stall; group commit makes up for what pipelining gave.
		MaxRPCsInFlight: 1,
		Timeout:         rpcTimeout,
	}), s.fsm.news, func() (last, commit uint64) {
		r := s.running.Load()
		if r == nil {
			return 0, 0 // it is being started
		}
		return r.LastIndex(), r.CommitIndex()
	})
}

func (s *Store) closeTransport() error {
	if c, ok := s.transport.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// gate is a stream layer that ends every connection when it is closed, and makes none afterwards. Raft's transport by itself
// only stops listening, and goes on sending heartbeats over the connections it has: a leader with a hung disk would keep its
// lead for as long as its process lives.
type gate struct {
	raft.StreamLayer
	mu     sync.Mutex
	closed bool
	open   map[net.Conn]struct{}
}

func (g *gate) Accept() (net.Conn, error) {
	c, err := g.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return g.admit(c)
}

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
	return g.admit(c)
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
		// What its other end did not take before is of no use to anybody.
		_ = c.Close()
	}
	return g.StreamLayer.Close()
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.open, c.Conn)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
