package raftstore

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/disk"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/metrics"
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
	// ended is closed when Raft has shut down.
	ended chan struct{}
}

func newNode(id raft.ServerID, news *transport.News) *node {
	return &node{id: id, news: news, ended: make(chan struct{})}
}

// open opens the files of the member and its transport. Raft itself does not run yet.
func (n *node) open(c Config, m *metrics.Metrics, fail func(error)) (err error) {
	n.disk, err = disk.Open(disk.Config{
		Dir: c.Dir, Limit: c.Timing.Disk, Fail: fail, Observe: m.DiskCall, Appending: n.news.Announce,
		Wrap: c.wrapLog, Logger: c.Logger,
	})
	if err != nil {
		return err
	}
	n.transport = transport.New(transport.Config{
		Stream: c.Stream, Address: c.Address, News: n.news, Position: n.position, Logger: c.Logger,
	})
	return nil
}

// start starts Raft, which drives the machine from then on.
func (n *node) start(rc *raft.Config, m *machine.Machine) error {
	var err error
	if n.raft, err = raft.NewRaft(rc, m, n.disk.Log, n.disk.Stable, n.disk.Snapshots, n.transport); err != nil {
		return err
	}
	n.running.Store(n.raft)
	return nil
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

// shutdown ends Raft. Files stay open until close.
func (n *node) shutdown() error {
	n.news.Close()
	err := n.raft.Shutdown().Error()
	close(n.ended)
	return err
}

// close closes the transport and the files.
func (n *node) close() error { return errors.Join(n.leave(), n.disk.Close()) }
