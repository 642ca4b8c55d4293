package raftstore

import (
	"cmp"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/disk"
	"github.com/ententehq/entente/raftstore/internal/election"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/metrics"
	"github.com/ententehq/entente/raftstore/internal/quorum"
	"github.com/ententehq/entente/raftstore/internal/transport"
)

// node runs Raft on this member.
type node struct {
	raft *raft.Raft
	id   raft.ServerID
	// running is raft once it was started, for what Raft calls during its start.
	running   atomic.Pointer[raft.Raft]
	disk      *disk.Store
	transport raft.Transport
	news      *transport.News
	acks      *quorum.Acks
	elections *election.Timer
	// started is closed once running is set, and ended when Raft has shut down.
	started, ended chan struct{}
}

func newNode(id raft.ServerID, news *transport.News) *node {
	return &node{
		id: id, news: news, acks: quorum.NewAcks(), started: make(chan struct{}), ended: make(chan struct{}),
	}
}

// open opens the files of the member and its transport. Raft itself does not run yet.
func (n *node) open(c Config, m *metrics.Metrics, copies *copies, fail func(error)) (err error) {
	n.disk, err = disk.Open(disk.Config{
		Dir: c.Dir, Limit: c.Timing.Disk, Fail: fail, Observe: m.DiskCall, Appending: n.news.Announce,
		Wrap: c.wrapLog, Probe: c.probe, Logger: c.Logger,
	})
	if err != nil {
		return err
	}
	n.elections = election.NewTimer(election.Bounds{
		Lease: c.Timing.Lease, Heartbeat: c.Timing.Heartbeat, Election: c.Timing.Election,
	})
	n.transport = transport.New(transport.Config{
		Stream: c.Stream, Address: c.Address, News: n.news, Acks: n.acks, Position: n.position,
		Received:   n.elections.Received,
		CannotVote: n.disk.Health.CannotVote, Handshake: copies.handshake(), Acknowledged: copies.acknowledged,
		Logger: c.Logger,
	})
	return nil
}

// resume prepares the machine for what this member had published before it stopped.
func (n *node) resume(m *machine.Machine) error {
	had := n.disk.Applied.Last()
	last, err := n.disk.LastIndex()
	if err != nil {
		return err
	}
	if had.Revision > last {
		return fmt.Errorf("the log is %w, or an older copy: this member had applied revision %d, and it ends at %d",
			disk.ErrDamaged, had.Revision, last)
	}
	m.Resume(machine.Resume{Revision: had.Revision, Record: n.disk.Applied.Record, RecordsNow: recordsNow})
	return nil
}

// start starts Raft, which drives the machine from then on.
func (n *node) start(rc *raft.Config, m *machine.Machine) error {
	found := n.disk.Serve()
	var err error
	// Raft panics at an entry that it cannot read, and a fault of the disk ends the goroutine.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("start Raft: %v", r)
			}
		}()
		n.raft, err = raft.NewRaft(rc, m, n.disk.Log, n.disk.Stable, n.disk.Snapshots, n.transport)
	}()
	<-done
	if err = cmp.Or(found(), err); err != nil {
		return err
	}
	n.running.Store(n.raft)
	close(n.started)
	return nil
}

// votes reports whether a server has a vote, as far as this member knows.
func (n *node) votes(server string) bool {
	r := n.running.Load()
	if r == nil {
		return false
	}
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if string(s.ID) == server {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

// rank returns the place of this member among those with a vote.
func (n *node) rank() int {
	rank := 0
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && s.ID < n.id {
			rank++
		}
	}
	return rank
}

// position returns how far the log and the commits of this member are.
func (n *node) position() (last, commit uint64) {
	r := n.running.Load()
	if r == nil {
		return 0, 0 // it is being started
	}
	return r.LastIndex(), r.CommitIndex()
}

// await returns the result of a request to Raft. Raft accepts requests until it has shut down, and never answers those
// that it did not come to: they end with raft.ErrRaftShutdown here.
func (n *node) await(future raft.Future) error {
	answer := make(chan error, 1)
	go func() { answer <- future.Error() }() // without an answer it stays, and holds only the future
	select {
	case err := <-answer:
		return err
	case <-n.ended:
	}
	select {
	case err := <-answer:
		return err
	default:
		return raft.ErrRaftShutdown
	}
}

// apply hands an entry to Raft. The function that it returns waits for it.
func (n *node) apply(entry []byte) (wait func() ([]machine.Outcome, error)) {
	future := n.raft.Apply(entry, 0)
	return func() ([]machine.Outcome, error) {
		if err := n.await(future); err != nil {
			return nil, err
		}
		outcomes, ok := future.Response().([]machine.Outcome)
		if !ok {
			return nil, fmt.Errorf("the entry was not applied: %v", future.Response())
		}
		return outcomes, nil
	}
}

// applyFirst commits the first entry of a term.
func (n *node) applyFirst(clusterID string) error {
	entry, err := proto.Marshal(&statev1.Entry{Version: machine.FirstCommandVersion, ClusterId: clusterID})
	if err != nil {
		return fmt.Errorf("encode the first entry of a term: %w", err)
	}
	return n.await(n.raft.Apply(entry, 0))
}

// leave ends this member's part in Raft without waiting for Raft, whose loop may be blocked.
func (n *node) leave() error { return transport.Close(n.transport) }

// shutdown ends Raft. Files stay open until close. The transport ends first: a message that arrives in the course, such
// as a heartbeat of a newer term, would reach Raft after its end.
func (n *node) shutdown() error {
	n.news.Close()
	err := n.leave()
	n.disk.Release()
	err = errors.Join(err, n.raft.Shutdown().Error())
	close(n.ended)
	return err
}

// close closes the transport and the files.
func (n *node) close() error { return errors.Join(n.leave(), n.disk.Close()) }
