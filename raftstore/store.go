package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Store is one member's part of the replicated tables. It is safe for concurrent use.
type Store struct {
	config Config
	log    hclog.Logger
	id     raft.ServerID

	raft *raft.Raft
	// running is raft once it was made, for what Raft calls while that is under way.
	running   atomic.Pointer[raft.Raft]
	fsm       *fsm
	disk      *disk
	transport raft.Transport
	hadState  bool
	// configurations knows at which index the Raft configuration stands.
	configurations configurationIndex
	commands       *commands
	leadership     *leadership
	queue          *queue
	asked          rounds // read indexes that this member asks the leader for
	verified       rounds // read indexes that this member gives as the leader
	metrics        *metrics
	survivors      survivors
	// commandVersion is the newest one that every member has announced.
	commandVersion atomic.Uint32

	closing  sync.Once
	closed   chan struct{} // closed when the store is
	down     chan struct{} // closed when Raft has ended
	ctx      context.Context
	cancel   context.CancelFunc
	tasks    tasks
	failOnce sync.Once
}

// Open starts this member's part of Raft. A member that has state takes up where it was; another waits to be added to a
// cluster, or for [Store.Bootstrap].
func Open(config Config) (*Store, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	rc, err := config.raft()
	if err != nil {
		return nil, err
	}
	s := &Store{config: config, log: config.Logger, id: rc.LocalID, closed: make(chan struct{}), down: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.commandVersion.Store(firstCommandVersion)
	s.fsm = newFSM(s.fail)
	s.leadership = newLeadership()
	if s.metrics, err = newMetrics(config.Registerer, s); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if s.disk, err = openDisk(config, s.metrics, s.fail); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if err := s.start(rc); err != nil {
		return nil, fmt.Errorf("open the store: %w", errors.Join(err, s.disk.close()))
	}
	return s, nil
}

func (s *Store) start(rc *raft.Config) (err error) {
	if s.hadState, err = raft.HasExistingState(s.disk.log, s.disk.stable, s.disk.snapshots); err != nil {
		return err
	}
	incarnation, err := s.disk.incarnation()
	if err != nil {
		return err
	}
	s.commands = newCommands(string(s.id), incarnation)
	s.transport = s.newTransport()
	notify := make(chan bool, 1)
	rc.NotifyCh = notify
	if s.raft, err = raft.NewRaft(rc, s.fsm, notingLog{s.disk.log, &s.configurations, s.fsm.news}, s.disk.stable, notingSnapshots{s.disk.snapshots, &s.configurations}, s.transport); err != nil {
		return errors.Join(err, s.closeTransport())
	}
	s.running.Store(s.raft)
	s.queue = newQueue(s)
	s.tasks.Go(func() { s.followLeadership(notify) })
	s.tasks.Go(s.queue.run)
	return nil
}

// View returns this member's present state. It never goes backwards.
func (s *Store) View() *View { return &View{state: s.fsm.state()} }

// ClusterID returns the identity of the cluster, which its first leader drew; empty before that.
func (s *Store) ClusterID() string { return s.fsm.state().clusterID }

// MemberID returns the name of this member.
func (s *Store) MemberID() string { return s.config.MemberID }

// AllowCommandVersion says up to which version every member announced that it applies commands. A leader uses none above.
func (s *Store) AllowCommandVersion(lowest uint32) {
	s.commandVersion.Store(min(CommandVersion, max(firstCommandVersion, lowest)))
}

// fail ends this member's part in Raft: it can no longer keep what Raft promises.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		// Not waited for: this is called from within Raft, or because of a call that never returns.
		go func() {
			s.log.Error("this member takes no more part in the cluster", "error", err)
			if closeErr := s.closeTransport(); closeErr != nil {
				s.log.Error("close the Raft transport", "error", closeErr)
			}
			s.config.Fatal(err)
		}()
	})
}

// await returns what Raft answers. Raft takes requests in until it has ended, and those that it did not come to are never
// answered: they end with [raft.ErrRaftShutdown] here.
func (s *Store) await(future raft.Future) error {
	answer := make(chan error, 1)
	go func() { answer <- future.Error() }() // without an answer it stays, with nothing but the future
	select {
	case err := <-answer:
		return err
	case <-s.down:
	}
	select {
	case err := <-answer:
		return err
	default:
		return raft.ErrRaftShutdown
	}
}

// Close ends this member's part in Raft, waits for its goroutines, and closes its files. What was written stays.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		close(s.closed)
		s.cancel()
		s.fsm.news.end()
		err = s.raft.Shutdown().Error()
		close(s.down)
		s.tasks.wait()
		err = errors.Join(err, s.closeTransport(), s.disk.close())
		s.metrics.unregister()
	})
	return err
}
