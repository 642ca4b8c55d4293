package raftstore

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/raftstore/internal/disk"
	"github.com/ententehq/entente/raftstore/internal/election"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/transport"
)

// Config describes a member and what its store runs on.
type Config struct {
	// MemberID is the name of this member, and Identity the SHA-256 of its identity key's SubjectPublicKeyInfo.
	// Together they are its server ID in Raft: a member that returns with another key is another server.
	MemberID string
	Identity [32]byte
	// Address is where the other members reach it: host:port.
	Address string
	// Dir is the folder of the log and the snapshots. It is created if it does not exist. If empty, everything is in
	// memory and is lost with the process, which suits only tests.
	Dir string
	// Stream connects the members for Raft. The store closes it. If nil, this member stays alone. If it is also a
	// raft.ServerAddressProvider, that chooses the address that its Dial receives for a server.
	Stream raft.StreamLayer
	// Dial returns a connection to another member, which serves StoreService on it. It is called whenever one is
	// needed, from many goroutines, and must not block. The store does not close the connection. If nil, this member
	// stays alone.
	Dial func(memberID string) (grpc.ClientConnInterface, error)
	// Fatal is called once, from a goroutine of the store, when this member must not continue: its disk hangs, its log
	// is damaged, or an entry needs a newer version. By then the member has left Raft; the process should exit with the
	// error. If nil, the error is logged.
	Fatal func(error)
	// Logger defaults to one that discards.
	Logger hclog.Logger
	// Registerer receives the store's metrics and Raft's own. If nil, none are exported. Raft's metrics are those of
	// the process: with several stores in one process the first registerer gets those of all.
	Registerer prometheus.Registerer
	Timing     Timing

	// wrapLog wraps the log store, in tests of bad disks.
	wrapLog func(raft.LogStore) raft.LogStore
	// probe replaces the probes of the disk, in tests of bad disks.
	probe disk.Probe
}

// Timing has the times that depend on the distance between the members. A zero field has its default, which suits the
// zones of one region.
type Timing struct {
	// Heartbeat is how long a member goes without a message of a leader before it starts an election, as long as it has
	// not measured what is usual. After that it is between Lease and four times this. Default 1 s.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes. Default 1 s.
	Election time.Duration
	// Lease is how long a leader goes without answers of a majority before it steps down. At most Heartbeat. Default
	// three quarters of it.
	Lease time.Duration
	// LeaderWait is how long writes and linearizable reads wait for a leader to be found before they fail with
	// [ErrNoLeader]. Default: three times Election, which spans one election that goes well.
	LeaderWait time.Duration
	// Disk is how long one call to the log store may take. Beyond it the member leaves Raft, because a leader whose
	// disk hangs would otherwise keep its leadership and commit nothing. Default 5 s.
	Disk time.Duration
	// SnapshotEntries is how many log entries lead to a snapshot. Default 8192.
	SnapshotEntries uint64
	// CheckpointEntries is how many log entries lie between two digests of the state, which the members compare. It is
	// the same on all members: only digests at one entry are comparable. Default 1024.
	CheckpointEntries uint64
}

func (c Config) withDefaults() (Config, error) {
	if c.MemberID == "" {
		return c, errors.New("open the store: the member has no ID")
	}
	if c.Stream != nil && c.Dial == nil {
		return c, errors.New("open the store: a member with a Raft transport needs Dial to reach the others")
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
	orDefault(&c.Timing.Lease, c.Timing.Heartbeat*3/4)
	orDefault(&c.Timing.LeaderWait, 3*c.Timing.Election)
	orDefault(&c.Timing.Disk, 5*time.Second)
	if c.Timing.SnapshotEntries == 0 {
		c.Timing.SnapshotEntries = 8192
	}
	if c.Timing.CheckpointEntries == 0 {
		c.Timing.CheckpointEntries = machine.CheckpointEvery
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
	rc.CommitTimeout = transport.CommitTimeout
	rc.SnapshotThreshold = c.Timing.SnapshotEntries
	rc.NoLegacyTelemetry = true
	// A member that was removed stays up, to report that.
	rc.ShutdownOnRemove = false
	rc.Logger = election.Logger(c.Logger.Named("raft"))
	if err := raft.ValidateConfig(rc); err != nil {
		return nil, fmt.Errorf("open the store of member %s: %w", c.MemberID, err)
	}
	return rc, nil
}
