package membership

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/membership/address"
	"github.com/ententehq/entente/raftstore/membership/autopilot"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/membership/recovery"
	"github.com/ententehq/entente/raftstore/membership/removal"
)

// Conns gives the connections to other members under entente-member/1. They are shared, and this package does not close
// them.
type Conns interface {
	Conn(memberID string) (grpc.ClientConnInterface, error)
}

// Prober verifies that the holder of an identity key answers at an address. The leader calls it before it adds a member
// to Raft; the error describes what it found instead.
type Prober interface {
	ProbeIdentity(ctx context.Context, address string, identity memberid.Digest) error
}

// Config is what a [Manager] needs.
type Config struct {
	Store     *raftstore.Store
	Directory *directory.Directory
	Conns     Conns
	Prober    Prober
	Self      memberid.Self
	// Identity is this member's identity key. With it and Dialer this member states its address to the others, also at
	// the Addresses, which the configuration file names. If it is nil, this member does not.
	Identity  *memberid.Identity
	Dialer    join.Dialer
	Addresses []string
	// ClusterName and HomeTrustDomain are compared with a joiner's.
	ClusterName, HomeTrustDomain string
	// DNSName resolves to the addresses of all members, or is empty. Listings of the members return it.
	DNSName string
	// Caller returns the ID of the member that makes a call under entente-member/1.
	Caller func(ctx context.Context) (memberID string, ok bool)
	Audit  Auditor
	// Administrator returns the text that names the administrator who makes a call. If nil, no one is named.
	Administrator func(ctx context.Context) string
	// OnChange is called after the membership has changed, from a goroutine of the manager, so that connections of
	// members can be checked again. It must not block for long.
	OnChange func()
	// OnRemove are called in the transaction that removes a member, possibly several times, so that what other rooms
	// keep of the member changes in the same revision. An error leaves the row in place.
	OnRemove []func(tx *raftstore.Tx, removed Removal) error
	// Report adds to the answer of a removal what the removed member can still do, and what it did, from the state
	// after the removal. If nil, nothing is added.
	Report func(r raftstore.Reader, removed Removal, answer *ententev1.RemoveMemberResponse) error
	// Undone returns what the restore of a snapshot of a revision undoes. If nil, nothing.
	Undone     func(r raftstore.Reader, at raftstore.Revision) ([]*ententev1.Effect, error)
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	// Now is the clock. If nil, it is time.Now.
	Now func() time.Time
	// HeartbeatEvery is how often a member sends a heartbeat to the leader. If 0, it is 1 s.
	HeartbeatEvery time.Duration
	// AliveTimeout is how long a member can send no heartbeat before it is no longer marked alive. If 0, it is 5 s,
	// which allows for a change of leader and a lost heartbeat or two.
	AliveTimeout time.Duration
	// MendEvery is how often the leader looks for members that have been dead for long. If 0, it is 10 s.
	MendEvery time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.Store == nil || c.Directory == nil || c.Conns == nil || c.Prober == nil || c.Caller == nil || c.Audit == nil {
		return c, errors.New("membership: Store, Directory, Conns, Prober, Caller and Audit are required")
	}
	if err := errors.Join(memberid.CheckID(c.Self.ID), memberid.CheckAddress(c.Self.Address)); err != nil {
		return c, err
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Administrator == nil {
		c.Administrator = func(context.Context) string { return "" }
	}
	if c.Report == nil {
		c.Report = func(raftstore.Reader, Removal, *ententev1.RemoveMemberResponse) error { return nil }
	}
	if c.Undone == nil {
		c.Undone = func(raftstore.Reader, raftstore.Revision) ([]*ententev1.Effect, error) { return nil, nil }
	}
	if c.OnChange == nil {
		c.OnChange = func() {}
	}
	if c.HeartbeatEvery <= 0 {
		c.HeartbeatEvery = time.Second
	}
	if c.AliveTimeout <= 0 {
		c.AliveTimeout = 5 * time.Second
	}
	return c, nil
}

// Manager keeps one member's part in the membership. See the package comment.
type Manager struct {
	config     Config
	metrics    *metrics
	clock      *clockJudge
	sections   *sections
	leader     *leader
	client     *leaderClient
	changes    *changes
	joins      *joins
	tokens     *tokens
	heartbeats *heartbeats
	announcer  *announcer
	addresses  *address.Exchange
	pilot      *autopilot.Pilot
}

// New returns the manager of a member whose store is open, and registers what of the membership survives a restore.
func New(cfg Config) (*Manager, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Manager{config: cfg}
	if m.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	changing := &sync.Mutex{} // of the Raft configuration
	m.clock = &clockJudge{log: cfg.Logger, metrics: m.metrics}
	m.sections = &sections{log: cfg.Logger, byName: make(map[string]Section)}
	diverged := &divergence{
		store: cfg.Store, self: cfg.Self.ID, version: cfg.Self.Version, log: cfg.Logger, metrics: m.metrics,
	}
	earlier := func() (string, time.Time) { return m.heartbeats.lastOther() }
	m.leader = &leader{
		store: cfg.Store, self: cfg.Self.ID, aliveTimeout: cfg.AliveTimeout, now: cfg.Now, log: cfg.Logger,
		metrics: m.metrics, clock: m.clock, sections: m.sections, changing: changing, divergence: diverged,
		beats: newHeartbeatSection(diverged, earlier), earlier: earlier, conns: cfg.Conns, disk: cfg.Store.Disk().Err,
	}
	m.leader.handovers = &handovers{store: cfg.Store, log: cfg.Logger, leader: m.leader}
	m.sections.leads = m.leader.leads
	m.client = &leaderClient{store: cfg.Store, conns: cfg.Conns, self: cfg.Self.ID}
	m.changes = &changes{
		store: cfg.Store, directory: cfg.Directory, prober: cfg.Prober, self: cfg.Self.ID, onRemove: cfg.OnRemove,
		onChange: cfg.OnChange, log: cfg.Logger, leader: m.leader, changing: changing, now: cfg.Now,
	}
	m.leader.commitMoves, m.leader.completeRemovals = m.changes.commitMoves, m.changes.completeRemovals
	m.pilot = &autopilot.Pilot{
		Store: cfg.Store, Members: m.changes.piloted, Remove: m.changes.removeDead(cfg.Audit), ClockSane: m.clock.sane,
		Logger: cfg.Logger, Now: cfg.Now, Every: cfg.MendEvery,
	}
	m.leader.mend = m.pilot.Run
	m.addresses = &address.Exchange{
		Directory: cfg.Directory, Dialer: cfg.Dialer, Identity: cfg.Identity, Self: cfg.Self,
		Start: raftstore.IntegrityOf(cfg.Store).Start(), Addresses: cfg.Addresses, Logger: cfg.Logger,
		LeaderKnown: func() bool { _, known := cfg.Store.Leader(); return known },
		Abandoned:   m.abandoned, Stop: raftstore.IntegrityOf(cfg.Store).Abandon,
		Servers:     cfg.Store.Servers().List,
		Removed:     func(of memberid.Digest) (string, bool) { return removal.Reason(cfg.Store.View(), of) },
		StopRemoved: raftstore.IntegrityOf(cfg.Store).Remove,
	}
	m.joins = &joins{
		store: cfg.Store, auditor: cfg.Audit, now: cfg.Now, log: cfg.Logger,
		metrics: m.metrics, cluster: join.Cluster{Name: cfg.ClusterName, HomeTrustDomain: cfg.HomeTrustDomain},
		limit: rate.NewLimiter(joinsEach, joinsAtOnce), leader: m.client, changes: m.changes,
	}
	m.tokens = &tokens{
		store: cfg.Store, directory: cfg.Directory, joins: m.joins, self: cfg.Self.ID, administrator: cfg.Administrator,
		now: cfg.Now,
	}
	m.heartbeats = &heartbeats{
		store: cfg.Store, conns: cfg.Conns, self: cfg.Self, every: cfg.HeartbeatEvery, now: cfg.Now, log: cfg.Logger,
		metrics: m.metrics, clock: m.clock, sections: m.sections, leader: m.leader, diverged: diverged,
		disk: cfg.Store.Disk().Err,
	}
	m.announcer = &announcer{
		store: cfg.Store, self: cfg.Self, now: cfg.Now, log: cfg.Logger,
	}
	m.Register(heartbeatSection, m.leader.beats)
	cfg.Store.Snapshots().Survive("membership", survive)
	cfg.Store.Snapshots().CountAsEmpty(founded)
	return m, nil
}

// Run does this member's part until ctx ends, and waits for everything that it started.
func (m *Manager) Run(ctx context.Context) error {
	m.sections.seal()
	store := m.config.Store
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ended(ctx, store.WhileLeading(ctx, m.leader.run)) })
	g.Go(func() error { m.heartbeats.run(ctx); return nil })
	g.Go(func() error { return m.config.Directory.Run(ctx, m.config.Conns) })
	g.Go(func() error { m.announcer.run(ctx); return nil })
	if m.config.Identity != nil {
		g.Go(func() error { return m.addresses.Run(ctx) })
	}
	g.Go(func() error {
		over := []raftstore.Prefix{Members.Prefix("")}
		return ended(ctx, feed.Latest(ctx, store, over, func(v *raftstore.View) error {
			rows, err := Members.List(v, "")
			if err != nil {
				return err
			}
			m.metrics.members.Set(float64(len(rows)))
			m.config.Directory.SetRecorded(committedAddresses(rows))
			m.config.OnChange()
			return nil
		}))
	})
	return g.Wait()
}

// ended drops the error with which a loop ends because its context or the store did.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil && !errors.Is(err, raftstore.ErrClosed) {
		return err
	}
	return nil
}

// Register adds a room's section. It must be called before [Manager.Run], and panics afterwards or if the name is
// taken: both are mistakes in the program.
func (m *Manager) Register(name string, s Section) { m.sections.register(name, s) }

// Query sends a query to a section on the leader, which may be this member.
func (m *Manager) Query(ctx context.Context, name string, query []byte) ([]byte, error) {
	return m.sections.query(ctx, m.client, name, query)
}

// Conn returns the connection to another member under entente-member/1.
func (m *Manager) Conn(memberID string) (grpc.ClientConnInterface, error) {
	return m.config.Conns.Conn(memberID)
}

// abandoned returns why the holder of an identity key cannot return, if the cluster was recovered without it.
func (m *Manager) abandoned(identity memberid.Digest) (string, bool) {
	r, err := recovery.Abandoned(m.config.Store.View(), identity)
	if err != nil || r == nil {
		return "", false
	}
	return recovery.Reason(r), true
}

// PendingRecovery returns the recovery of the cluster that this member has not completed, or nil.
func (m *Manager) PendingRecovery() (*statev1.Recovery, error) {
	return recovery.Pending(m.config.Store.View())
}

// CompleteRecovery removes the members that the cluster was recovered without. It must be called before this member
// serves anything, and after everything else that belongs to the recovery is done.
func (m *Manager) CompleteRecovery(ctx context.Context, pending *statev1.Recovery) error {
	return m.changes.completeRecovery(ctx, pending, m.config.Now())
}

// LastContact returns when the leader last answered this member, or it led. If that has not happened since it started,
// it is what the member recorded before; zero: there is none, or the clock is before it.
func (m *Manager) LastContact() time.Time {
	if since := m.heartbeats.lastContact(); !since.IsZero() {
		return since
	}
	recorded := m.config.Store.Serving().Contact()
	if m.config.Now().Before(recorded) {
		return time.Time{}
	}
	return recorded
}

// CanCommit returns why the leader cannot commit because of disks, its own or those of a majority, as far as this
// member knows, or nil. It reads memory alone.
func (m *Manager) CanCommit() error {
	if obstacle := m.heartbeats.obstacle(); obstacle != "" {
		return errors.New(obstacle)
	}
	return nil
}

// Behind returns an error while this member is more than two seconds behind the leader, so that writes through it are
// answered late or with an unknown outcome. It reads memory alone.
func (m *Manager) Behind() error { return m.heartbeats.behind() }

// ClockPlausible reports whether this member's clock is sane, or, until heartbeats were answered, whether it is not
// before the last contact that was recorded.
func (m *Manager) ClockPlausible() bool {
	recorded := m.config.Store.Serving().Contact()
	return m.clock.sane() || !m.clock.judged() && !recorded.IsZero() && !m.config.Now().Before(recorded)
}

// ClockSane reports whether this member's clock is within five minutes of a majority's, according to the last
// heartbeats. It is false until they have been answered, and from the moment at which the clock is set until they are
// answered again. A member whose clock is not sane must not sign, nor end anything by its clock.
func (m *Manager) ClockSane() bool { return m.clock.sane() }

// JoinService admits new members, and exchanges the addresses of members. It is served under entente-join/1 only, to
// unauthenticated callers; any member serves it.
func (m *Manager) JoinService() ententev1.JoinServiceServer {
	return joinService{joins: m.joins, addresses: m.addresses}
}

// MemberService serves the calls of other members. It is served under entente-member/1 only.
func (m *Manager) MemberService() ententev1.MemberServiceServer {
	return memberService{
		caller: m.config.Caller, now: m.config.Now, directory: m.config.Directory, leader: m.leader, changes: m.changes,
		sections: m.sections, beats: m.heartbeats,
	}
}

// ClusterService manages the members and the replicated state as a whole. Any member serves it. Authorization happens
// before it is called.
func (m *Manager) ClusterService() ententev1.ClusterServiceServer {
	return clusterService{
		store: m.config.Store, self: m.config.Self.ID, tokens: m.tokens, cluster: m.joins.cluster, log: m.config.Logger,
		leader: m.client, report: m.config.Report, undone: m.config.Undone, dnsName: m.config.DNSName,
		sections: m.sections, changes: m.changes, earlier: m.leader.earlier, pilot: m.pilot,
	}
}
