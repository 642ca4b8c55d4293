package raftstore

import (
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// newTransport puts Raft's messages on the stream layer of the configuration.
func (s *Store) newTransport() raft.Transport {
	if s.config.Stream == nil {
		_, t := raft.NewInmemTransport(raft.ServerAddress(s.config.Address))
		return t
	}
	// A stream layer that checks who answers needs to know which server is meant, not only where it is.
	provider, _ := s.config.Stream.(raft.ServerAddressProvider) //nolint:errcheck // nil: Raft's own addresses are used
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                s.config.Stream,
		ServerAddressProvider: provider,
		Logger:                s.log.Named("raft-net"),
		// One connection each for heartbeats, entries and a vote at the same time.
		MaxPool: 3,
		// Pipelined entries can leave a follower wedged after a stall; group commit makes up for what pipelining gave.
		MaxRPCsInFlight: 1,
		Timeout:         10 * time.Second,
	})
}

func (s *Store) closeTransport() error {
	if c, ok := s.transport.(io.Closer); ok {
		return c.Close()
	}
	if c, ok := s.transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}
