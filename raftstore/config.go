package raftstore

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// Config says who a member is and what its store stands on.
type Config struct {
	// MemberID is the name of this member, and Identity the SHA-256 of its identity key's SubjectPublicKeyInfo. Together they
	// are what Raft knows it by: a member that comes back with another key is another server.
	MemberID string
	Identity [32]byte
	// Address is where the other members reach it: host:port.
	Address string
	// Dir is the folder that holds the log and the snapshots. It is made when it is not there. Empty: all is kept in memory
	// and is lost with the process, which suits tests alone.
	Dir string
	// Stream carries Raft between the members. The store closes it. Nil: this member stays alone. If it is also a
	// raft.ServerAddressProvider, it says what Dial is called with for a server, and so learns which server is meant.
	Stream raft.StreamLayer
	// Dial returns a connection to a fellow member, on which StoreService is served. It is called whenever one is needed,
	// from many goroutines, and must not block; the store does not close what it returns. Nil: this member stays alone.
	Dial func(memberID string) (grpc.ClientConnInterface, error)
	// Fatal is called once, from a goroutine of the store, when this member must not go on: its disk hangs, its log is
	// damaged, or it is asked to apply what only a newer version knows. By then it takes no more part in Raft; the process
	// should exit with the error. Nil: the error is logged.
	Fatal func(error)
	// Logger defaults to one that discards.
	Logger hclog.Logger
	// Registerer takes the store's metrics and Raft's own. Nil: there are none. Raft's metrics are the process's: with several
	// stores in one process the first registerer gets those of all.
	Registerer prometheus.Registerer
	Timing     Timing

	// wrapLog puts something between this member and its log, in tests of what a bad disk does.
	wrapLog func(raft.LogStore) raft.LogStore
}

// Timing holds the times that depend on how far the members are from each other. A zero field has its default, which suits
// the zones of one region.
type Timing struct {
	// Heartbeat is how long a member goes without hearing from a leader before it asks for an election. Default 1 s.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes. Default 1 s.
	Election time.Duration
	// Lease is how long a leader goes without hearing from a majority before it gives up. At most Heartbeat. Default 500 ms.
	Lease time.Duration
	// LeaderWait is how long writes and linearizable reads wait for a leader to be found before they fail with [ErrNoLeader].
	// Default: three times Election, which spans one election that goes well.
	LeaderWait time.Duration
	// Disk is how long one call to the log store may take. Beyond it the member gives up its part in Raft, because a leader
	// whose disk hangs would otherwise keep its lead and commit nothing. Default 5 s.
	Disk time.Duration
	// SnapshotEntries is how many log entries lead to a snapshot. Default 8192.
	SnapshotEntries uint64
}

func (c Config) withDefaults() (Config, error) {
	if c.MemberID == "" {
		return c, errors.New("open the store: the member has no ID")
	}
	if c.Stream != nil && c.Dial == nil {
		return c, errors.New("open the store: a member with a Raft transport also needs a way to dial its fellows")
	}
	if c.Address == "" {
		c.Address = c.MemberID
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	orDefault := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	orDefault(&c.Timing.Heartbeat, time.Second)
	orDefault(&c.Timing.Election, time.Second)
	orDefault(&c.Timing.Lease, c.Timing.Heartbeat/2)
	orDefault(&c.Timing.LeaderWait, 3*c.Timing.Election)
	orDefault(&c.Timing.Disk, 5*time.Second)
	if c.Timing.SnapshotEntries == 0 {
		c.Timing.SnapshotEntries = 8192
	}
	if c.Fatal == nil {
		log := c.Logger
		c.Fatal = func(err error) { log.Error("the store stopped", "error", err) }
	}
	return c, nil
}

func (c Config) raft() (*raft.Config, error) {
	rc := raft.DefaultConfig()
	rc.LocalID = serverID(c.MemberID, c.Identity)
	rc.HeartbeatTimeout = c.Timing.Heartbeat
	rc.ElectionTimeout = c.Timing.Election
	rc.LeaderLeaseTimeout = c.Timing.Lease
	rc.CommitTimeout = commitTimeout
	rc.SnapshotThreshold = c.Timing.SnapshotEntries
	rc.NoLegacyTelemetry = true
	// A member that was removed stays up, so that it can say so.
	rc.ShutdownOnRemove = false
	rc.Logger = c.Logger.Named("raft")
	if err := raft.ValidateConfig(rc); err != nil {
		return nil, fmt.Errorf("open the store of member %s: %w", c.MemberID, err)
	}
	return rc, nil
}
