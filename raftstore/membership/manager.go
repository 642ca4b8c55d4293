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

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
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
	// ClusterName and HomeTrustDomain are compared with a joiner's.
	ClusterName, HomeTrustDomain string
	// Caller returns the ID of the member that makes a call under entente-member/1.
	Caller func(ctx context.Context) (memberID string, ok bool)
	Audit  Auditor
	// OnChange is called after the membership has changed, from a goroutine of the manager, so that connections of
	// members can be checked again. It must not block for long.
	OnChange func()
	// OnRemove are called in the transaction that removes a member, possibly several times, so that what other rooms
	// keep of the member changes in the same revision. An error leaves the row in place.
	OnRemove   []func(tx *raftstore.Tx, removed Removal) error
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	// Now is the clock. If nil, it is time.Now.
	Now func() time.Time
	// HeartbeatEvery is how often a member sends a heartbeat to the leader. If 0, it is 1 s.
	HeartbeatEvery time.Duration
	// AliveTimeout is how long a member can send no heartbeat before it is no longer marked alive. If 0, it is 5 s,
	// which allows for a change of leader and a lost heartbeat or two.
	AliveTimeout time.Duration
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
	heartbeats *heartbeats
	announcer  *announcer
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
	m.leader = &leader{
		store: cfg.Store, self: cfg.Self.ID, aliveTimeout: cfg.AliveTimeout, now: cfg.Now, log: cfg.Logger,
		metrics: m.metrics, clock: m.clock, sections: m.sections, changing: changing, beats: newHeartbeatSection(),
	}
	m.sections.leads = m.leader.leads
	m.client = &leaderClient{store: cfg.Store, conns: cfg.Conns, self: cfg.Self.ID}
	m.changes = &changes{
		store: cfg.Store, directory: cfg.Directory, prober: cfg.Prober, self: cfg.Self.ID, onRemove: cfg.OnRemove,
		log: cfg.Logger, leader: m.leader, changing: changing,
	}
	m.joins = &joins{
		store: cfg.Store, directory: cfg.Directory, auditor: cfg.Audit, now: cfg.Now, log: cfg.Logger,
		metrics: m.metrics, cluster: join.Cluster{Name: cfg.ClusterName, HomeTrustDomain: cfg.HomeTrustDomain},
		limit: rate.NewLimiter(joinsEach, joinsAtOnce), leader: m.client, changes: m.changes,
	}
	m.heartbeats = &heartbeats{
		store: cfg.Store, conns: cfg.Conns, self: cfg.Self, every: cfg.HeartbeatEvery, now: cfg.Now, log: cfg.Logger,
		metrics: m.metrics, clock: m.clock, sections: m.sections, leader: m.leader,
	}
	m.announcer = &announcer{
		store: cfg.Store, directory: cfg.Directory, conns: cfg.Conns, self: cfg.Self, now: cfg.Now, log: cfg.Logger,
		changes: m.changes,
	}
	m.Register(heartbeatSection, m.leader.beats)
	cfg.Store.SurviveRestore("membership", survive)
	cfg.Store.CountAsEmpty(founded)
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
	g.Go(func() error {
		over := []raftstore.Prefix{Members.Prefix("")}
		return ended(ctx, feed.Latest(ctx, store, over, func(v *raftstore.View) error {
			rows, err := Members.List(v, "")
			if err != nil {
				return err
			}
			m.metrics.members.Set(float64(len(rows)))
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

// LastContact returns when the leader last answered this member, or it led; zero: not since it started.
func (m *Manager) LastContact() time.Time { return m.heartbeats.lastContact() }

// ClockSane reports whether this member's clock is within five minutes of a majority's, according to the last
// heartbeats. It is false until they have been answered, and from the moment at which the clock is set until they are
// answered again. A member whose clock is not sane must not sign, nor end anything by its clock.
func (m *Manager) ClockSane() bool { return m.clock.sane() }

// JoinService admits new members. It is served under entente-join/1 only, to unauthenticated callers; any member serves
// it.
func (m *Manager) JoinService() ententev1.JoinServiceServer { return joinService{joins: m.joins} }

// MemberService serves the calls of other members. It is served under entente-member/1 only.
func (m *Manager) MemberService() ententev1.MemberServiceServer {
	return memberService{
		caller: m.config.Caller, now: m.config.Now, directory: m.config.Directory, leader: m.leader, changes: m.changes,
		sections: m.sections,
	}
}

// ClusterService manages the members and the replicated state as a whole. Any member serves it. Authorization happens
// before it is called.
func (m *Manager) ClusterService() ententev1.ClusterServiceServer {
	return clusterService{
		store: m.config.Store, self: m.config.Self.ID, joins: m.joins, log: m.config.Logger, leader: m.client,
		sections: m.sections, changes: m.changes,
	}
}
