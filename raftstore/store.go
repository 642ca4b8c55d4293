package raftstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.opentelemetry.io/otel/attribute"

	"github.com/ententehq/entente/internal/span"
	"github.com/ententehq/entente/raftstore/internal/commit"
	"github.com/ententehq/entente/raftstore/internal/disk"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/metrics"
	"github.com/ententehq/entente/raftstore/internal/transport"
)

// Store is one member's part of the replicated tables. It is safe for concurrent use.
type Store struct {
	config   Config
	log      hclog.Logger
	hadState bool
	// incarnation is the number of this start of the member.
	incarnation uint64

	life       *lifetime
	machine    *machine.Machine
	node       *node
	leadership *leadership
	reads      *reads
	sender     *sender
	survivors  *survivors
	serving    *Serving
	metrics    *metrics.Metrics
	// commandVersion is the newest one that every member has announced.
	commandVersion atomic.Uint32

	closing  sync.Once
	failOnce sync.Once
}

// CommandVersion is the newest version of commands that this build writes and applies.
const CommandVersion = machine.CommandVersion

// OwnersVersion is the first version of commands whose members enforce the owners of services.
const OwnersVersion = machine.OwnersVersion

// SuccessorsVersion is the first version of commands whose members know the rows of roots that are published ahead.
const SuccessorsVersion = machine.SuccessorsVersion

// Open starts this member's part of Raft. A member that has state continues from it; another waits to be added to a
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
	s := &Store{config: config, log: config.Logger, life: newLifetime(), survivors: &survivors{}}
	s.commandVersion.Store(machine.FirstCommandVersion)
	news := transport.NewNews()
	s.machine = machine.New(s.fail, news.Announce)
	s.machine.CheckpointEach(config.Timing.CheckpointEntries)
	s.metrics = metrics.New(metrics.Gauges{
		Revision:        func() uint64 { return s.machine.State().Revision },
		ElectionTimeout: func() time.Duration { return s.node.elections.Timeout() },
		Leads: func() bool {
			lead, _ := s.leadership.current()
			return lead != nil
		},
		Disk: func() metrics.Disk {
			health := s.node.disk.Health
			space, limited := health.Space()
			return metrics.Disk{
				Writable: health.Err() == nil, Median: health.Median(), Limited: limited,
				Free: space.Free, Total: space.Total,
			}
		},
	})
	s.node = newNode(rc.LocalID, news)
	s.leadership = newLeadership(s.node, s.machine, config)
	copies := newCopies(s)
	if err := s.node.open(config, s.metrics, copies, s.fail); err != nil {
		return nil, fmt.Errorf("open the store: %w", repairable(s.config.MemberID, err))
	}
	if err := s.metrics.Register(config.Registerer); err != nil { // the gauges read the leadership and the disk
		return nil, fmt.Errorf("open the store: %w", errors.Join(err, s.node.close()))
	}
	if err := s.start(rc, copies); err != nil {
		s.metrics.Unregister()
		return nil, fmt.Errorf("open the store: %w", repairable(s.config.MemberID, errors.Join(err, s.node.close())))
	}
	return s, nil
}

func (s *Store) start(rc *raft.Config, copies *copies) (err error) {
	if s.hadState, err = s.node.disk.HasState(); err != nil {
		return err
	}
	if s.incarnation, err = s.node.disk.NextIncarnation(); err != nil {
		return err
	}
	copies.own.Start = s.incarnation
	peers := peers{self: s.config.MemberID, dial: s.config.Dial}
	s.reads = &reads{
		leadership: s.leadership, life: s.life, machine: s.machine, peers: peers,
		verifyLeader: func() raft.Future { return s.node.raft.VerifyLeader() },
	}
	queue := commit.New(leaderLog{s.leadership, &s.commandVersion}, s.machine, s.metrics, s.life.done())
	s.sender = &sender{
		leadership: s.leadership, life: s.life, reads: s.reads, queue: queue, peers: peers,
		numbers: commit.NewNumbers(string(s.node.id), s.incarnation),
	}
	s.serving = newServing(s)
	if err := s.node.resume(s.machine); err != nil {
		return err
	}
	leading := make(chan bool, 1)
	rc.NotifyCh = leading
	if err := s.node.start(rc, s.machine); err != nil {
		return err
	}
	s.life.Go(func() { s.leadership.run(s.life.ctx, leading) })
	s.life.Go(queue.Run)
	s.life.Go(func() {
		if err := s.node.elections.Run(s.life.ctx, s.node.raft, s.node.rank); s.life.ctx.Err() == nil {
			s.log.Error("elections go on with fixed timeouts", "error", err)
		}
	})
	s.life.Go(func() {
		daily := time.NewTicker(verifyEvery)
		defer daily.Stop()
		IntegrityOf(s).verifyMemory(s.life.ctx, daily.C)
	})
	s.life.Go(func() { s.node.disk.Health.Run(s.life.ctx) })
	s.life.Go(func() { s.serving.run(s.life.ctx) })
	s.life.Go(func() {
		if err := s.node.disk.Applied.Run(s.life.ctx); err != nil {
			s.fail(fmt.Errorf("member stopped: %w", err))
		}
	})
	return nil
}

// leaderLog is the Raft log as the commit queue uses it.
type leaderLog struct {
	leadership *leadership
	version    *atomic.Uint32
}

// Leads implements commit.Log.
func (l leaderLog) Leads() bool { return l.leadership.leads() }

// Changed implements commit.Log.
func (l leaderLog) Changed() <-chan struct{} {
	_, changed := l.leadership.current()
	return changed
}

// Propose implements commit.Log.
func (l leaderLog) Propose(entry []byte) func() ([]machine.Outcome, error) {
	return l.leadership.node.apply(entry)
}

// CommandVersion implements commit.Log.
func (l leaderLog) CommandVersion() uint32 { return l.version.Load() }

// View returns this member's present state. It never goes backwards, not even over a restart: until the member has
// loaded what it had published before, which [Serving.AwaitLoaded] waits for, the state is empty.
func (s *Store) View() *View { return &View{state: s.machine.State()} }

// Read returns this member's state once it is as new as requested. It waits for that no longer than Timing.LeaderWait,
// then fails with [ErrBehind], or with [ErrNoLeader] if a linearizable read finds no leader. A member that has not
// loaded its state yet returns a [StartingError].
func (s *Store) Read(ctx context.Context, o ReadOptions) (*View, error) {
	if err := s.serving.check(ctx); err != nil {
		return nil, err
	}
	index := uint64(o.MinRevision)
	if o.Linearizable {
		acknowledged, err := s.reads.index(ctx)
		if err != nil {
			return nil, err
		}
		index = max(index, acknowledged)
	}
	if err := s.reads.reach(ctx, index); err != nil {
		return nil, err
	}
	return s.View(), nil
}

// Update runs a transaction: fn reads and writes rows of this member's state, and what it wrote is committed if all
// that it read is unchanged; otherwise fn runs again on the newer state. It may run several times, and must do nothing
// but read and write through its Tx.
//
// When Update returns a revision, a majority has the changes on disk and this member has applied them. An error of fn
// is returned unchanged, and nothing is written; nor is anything if fn wrote nothing. In both cases what fn read was
// verified with the leader, so that the result is not that of a stale state; only if there is no leader, an error of fn
// is returned unverified.
//
// Other errors: [ErrNoLeader], [ErrBusy], [ErrTooLarge] and a [StartingError], after which nothing was written;
// [ErrUnknownOutcome]; [ErrClosed] and the errors of ctx, after which nothing was written.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) (revision Revision, err error) {
	u := updating{machine: s.machine, sender: s.sender, by: s.sender.numbers.Next()}
	ctx, transaction := span.Start(ctx, "transaction")
	defer func() {
		transaction.SetAttributes(attribute.Int64("entente.revision", int64(revision)), //nolint:gosec // below 1<<63
			attribute.Int("entente.transaction.runs", int(u.rejections)+1))
		span.End(transaction, err)
	}()
	for {
		if err := s.serving.check(ctx); err != nil {
			return 0, err
		}
		revision, again, err := u.attempt(ctx, fn)
		if !again {
			return revision, err
		}
		u.rejections++
	}
}

// Watch follows the rows below the prefixes from a revision on, usually that of a [View] that the caller has read: the
// first batch is the first one after it. It must be closed. Package feed has the loops around it.
func (s *Store) Watch(over []Prefix, from Revision) *Watch {
	return &Watch{closed: s.life.done(), sub: s.machine.History.Subscribe(slices.Clone(over), from)}
}

// ClusterID returns the identity of the cluster, which its first leader generated. It is empty before that.
func (s *Store) ClusterID() string { return s.machine.State().ClusterID }

// MemberID returns the name of this member.
func (s *Store) MemberID() string { return s.config.MemberID }

// HasState reports whether this member was part of a cluster before it was started.
func (s *Store) HasState() bool { return s.hadState }

// Bootstrap forms a cluster of this member alone. It fails if the member has state already.
func (s *Store) Bootstrap() error {
	err := s.node.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: s.node.id, Address: raft.ServerAddress(s.config.Address),
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("bootstrap a cluster: member %s has state of a cluster already; "+
			"start it without bootstrapping, or with an empty data folder: %w", s.config.MemberID, err)
	}
	if err != nil {
		return fmt.Errorf("bootstrap a cluster: %w", err)
	}
	return nil
}

// Serving returns how far this member is after its start, and whether it may serve what it has.
func (s *Store) Serving() *Serving { return s.serving }

// Servers returns the Raft configuration of the cluster.
func (s *Store) Servers() *Servers {
	return &Servers{node: s.node, life: s.life, log: s.log}
}

// IsLeader reports whether this member leads and has applied everything that was acknowledged before.
func (s *Store) IsLeader() bool { return s.leadership.leads() }

// Responds returns once Raft's main loop has handled a request, or with the error of ctx. It says nothing about who
// leads.
func (s *Store) Responds(ctx context.Context) error {
	handled := make(chan struct{})
	go func() {
		_ = s.node.raft.VerifyLeader().Error() // that this member does not lead, or no longer, is an answer too
		close(handled)
	}()
	select {
	case <-handled:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("raft's main loop does not respond: %w", ctx.Err())
	}
}

// Stats returns what hashicorp/raft states of itself: its state, terms, indexes and configuration.
func (s *Store) Stats() map[string]string { return s.node.raft.Stats() }

// Leader returns the member that leads, as far as this one knows.
func (s *Store) Leader() (Server, bool) { return s.leadership.leader() }

// Term returns the present Raft term of this member.
func (s *Store) Term() uint64 { return s.node.raft.CurrentTerm() }

// WhileLeading runs fn each time this member comes to lead, with a context that ends when leadership is lost, and waits
// for fn before it runs it again. It returns when ctx ends, with its error, or when the store is closed.
func (s *Store) WhileLeading(ctx context.Context, fn func(ctx context.Context)) error {
	return s.leadership.whileLeading(ctx, s.life, fn)
}

// Disk returns the health of this member's disk.
func (s *Store) Disk() *Disk { return s.node.disk.Health }

// Disk is whether the disk of a member accepts writes.
type Disk = disk.Health

// ElectionTimeout returns for how long this member waits at present for a message of the leader before it starts an
// election. It follows the gaps between those that it received.
func (s *Store) ElectionTimeout() time.Duration { return s.node.elections.Timeout() }

// AllowCommandVersion sets the newest version of commands that every member has announced to apply. A leader uses none
// above.
func (s *Store) AllowCommandVersion(lowest uint32) {
	s.commandVersion.Store(min(machine.CommandVersion, max(machine.FirstCommandVersion, lowest)))
}

// repairable adds to an error that is due to a damaged file which command repairs the member, and to one that is due to
// a recovery or to its removal how it returns.
func repairable(memberID string, err error) error {
	if errors.Is(err, ErrAbandoned) || errors.Is(err, ErrRemoved) {
		return fmt.Errorf("%w; to return, empty the data folder and join the cluster with a new token", err)
	}
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w; run 'entente cluster repair %s' against another member, then start this one again: "+
		"it is rebuilt from the others and keeps its id and keys", err, memberID)
}

// fail ends this member's part in Raft: it can no longer keep what Raft promises.
func (s *Store) fail(err error) {
	err = repairable(s.config.MemberID, err)
	s.failOnce.Do(func() {
		// Not waited for: the caller is within Raft, or a call that never returns. The log may be on the disk that
		// hangs, so that a line about it comes last.
		go func() {
			s.leadership.stop()
			closeErr := s.node.leave()
			s.config.Fatal(err)
			if closeErr != nil {
				s.log.Error("close the Raft transport", "error", closeErr)
			}
		}()
	})
}

// Close ends this member's part in Raft, waits for its goroutines, and closes its files. What was written stays.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		s.life.cancel()
		err = s.node.shutdown()
		s.life.wait()
		err = errors.Join(err, s.node.close())
		s.metrics.Unregister()
	})
	return err
}
