package membership

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
)

// Conns gives the connections to fellow members under entente-member/1. They are shared; nobody here closes
// them.
type Conns interface {
	Conn(memberID string) (grpc.ClientConnInterface, error)
}

// Prober proves that the holder of an identity key answers at an address. The leader asks before it adds a
// member to Raft; the error says what it found instead.
type Prober interface {
	ProbeIdentity(ctx context.Context, address string, identity Digest) error
}

// Auditor keeps a line on each join, whose caller no other room knows. If it returns an error, the joiner is
// refused.
type Auditor interface {
	RecordJoin(JoinEvent) error
}

// JoinEvent is one decision on a joiner: Result is empty for the intent, and then "ok" or the refusal.
type JoinEvent struct {
	MemberID string
	Identity Digest
	Address  string
	TokenID  string
	Result   string
	Revision raftstore.Revision
}

// Removal is what other rooms hear of a member that is struck out.
type Removal struct {
	MemberID    string
	Compromised bool
}

// Self is what a member says of itself.
type Self struct {
	ID, Region, Zone string
	// Address is where fellow members and clients reach it.
	Address string
	// Version is that of the software.
	Version  string
	Identity Digest
}

// Config is what a [Manager] needs.
type Config struct {
	Store     *raftstore.Store
	Directory *Directory
	Conns     Conns
	Prober    Prober
	Self      Self
	// ClusterName and HomeTrustDomain are compared with a joiner's.
	ClusterName, HomeTrustDomain string
	// Caller returns the id of the fellow member that makes a call under entente-member/1.
	Caller func(ctx context.Context) (memberID string, ok bool)
	Audit  Auditor
	// OnChange is called after the membership has changed, from a goroutine of the manager: whoever keeps
	// connections of members checks them again. It must not block for long.
	OnChange func()
	// OnRemove are called in the transaction that strikes a member out, maybe several times, so that what
	// other rooms keep of the member changes at the same moment. An error leaves the row in place.
	OnRemove   []func(tx *raftstore.Tx, removed Removal) error
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// HeartbeatEvery is how often a member tells the leader that it lives. 0: 1 s.
	HeartbeatEvery time.Duration
	// AliveTimeout is how long a member can be silent before it is no longer marked alive. 0: 5 s, in which
	// a change of leader and a lost heartbeat or two have room.
	AliveTimeout time.Duration
}

// config is embedded without being exported with it.
type config Config

// Manager keeps one member's part in the membership. See the package comment.
type Manager struct {
	config
	metrics  *metrics
	joins    *rate.Limiter
	sections map[string]Section
	// changing is held by the leader while it changes the Raft configuration.
	changing sync.Mutex

	mu        sync.Mutex
	running   bool
	lead      *lead
	lastHeard time.Time
	clock     clockVerdict
}

// Joins are answered at this rate at most, whoever asks: more are no cluster's need, and each costs a round
// through the leader.
const (
	joinsEach   = rate.Limit(5)
	joinsAtOnce = 20
)

// New makes the manager of a member whose store is open, and registers what of the membership outlives a
// restore.
func New(cfg Config) (*Manager, error) {
	if cfg.Store == nil || cfg.Directory == nil || cfg.Conns == nil || cfg.Prober == nil || cfg.Caller == nil || cfg.Audit == nil {
		return nil, errors.New("membership: Store, Directory, Conns, Prober, Caller and Audit are required")
	}
	if err := errors.Join(CheckID(cfg.Self.ID), CheckAddress(cfg.Self.Address)); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func() {}
	}
	if cfg.HeartbeatEvery <= 0 {
		cfg.HeartbeatEvery = time.Second
	}
	if cfg.AliveTimeout <= 0 {
		cfg.AliveTimeout = 5 * time.Second
	}
	m := &Manager{config: config(cfg), joins: rate.NewLimiter(joinsEach, joinsAtOnce), sections: make(map[string]Section)}
	var err error
	if m.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	m.Register(ownSection, (*heard)(m))
	cfg.Store.SurviveRestore("membership", survive)
	cfg.Store.CountAsEmpty(founded)
	return m, nil
}

// Run does this member's part until ctx ends, and waits for all that it started.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	m.running = true
	m.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ended(ctx, m.Store.WhileLeading(ctx, m.leading)) })
	g.Go(func() error { m.beats(ctx); return nil })
	g.Go(func() error { return m.Directory.Run(ctx, m.Conns) })
	g.Go(func() error { m.announce(ctx); return nil })
	g.Go(func() error {
		return ended(ctx, feed.Latest(ctx, m.Store, []raftstore.Prefix{Members.Prefix("")}, func(v *raftstore.View) error {
			rows, err := Members.List(v, "")
			if err != nil {
				return err
			}
			m.metrics.members.Set(float64(len(rows)))
			m.OnChange()
			return nil
		}))
	})
	return g.Wait()
}

// ended drops the error with which a loop of the store ends because it was told to.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil && !errors.Is(err, raftstore.ErrClosed) {
		return err
	}
	return nil
}

// Conn returns the connection to a fellow member under entente-member/1.
func (m *Manager) Conn(memberID string) (grpc.ClientConnInterface, error) {
	return m.Conns.Conn(memberID)
}

// LastHeard returns when this member last heard from the leader, or led; zero: not since it started.
func (m *Manager) LastHeard() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lastHeard
}

func (m *Manager) heardNow() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastHeard = m.Now()
}

// ClockSane reports whether this member's clock is within five minutes of a majority's, as of the last
// heartbeats. It is false until they have told, and from the moment at which the clock is set until they tell again.
// A member whose clock is not must not sign, nor end anything
// by its clock.
func (m *Manager) ClockSane() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clock.sane(readClocks())
}

// judgeClock takes over a verdict, and logs when it turns.
func (m *Manager) judgeClock(v clockVerdict, offset time.Duration) {
	m.mu.Lock()
	was := m.clock
	v.read = readClocks()
	m.clock = v
	m.mu.Unlock()
	m.metrics.clockOffset.Set(offset.Seconds())
	m.metrics.clockDistance.Set(v.distance.Seconds())
	wasBad, isBad := was.known && was.distance > maxClockDistance, v.known && v.distance > maxClockDistance
	switch {
	case isBad && !wasBad:
		m.Logger.Error("this member's clock is not that of the others: it signs nothing until that is mended; check its time service",
			"distance_from_majority", v.distance, "ahead_of_leader", offset, "bound", maxClockDistance)
	case wasBad && !isBad:
		m.Logger.Info("this member's clock is that of the others again", "distance_from_majority", v.distance)
	}
}

type metrics struct {
	members, alive, clockOffset, clockDistance prometheus.Gauge
	heartbeats, joins                          *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "entente_membership_" + name, Help: help})
	}
	m := &metrics{
		members:       gauge("members", "Members of the cluster."),
		alive:         gauge("alive_members", "Members that the leader marks alive; 0 on members that do not lead."),
		clockOffset:   gauge("clock_offset_seconds", "How far this member's clock is ahead of the leader's."),
		clockDistance: gauge("clock_distance_seconds", "How far this member's clock is from a majority's; signing stops beyond 300."),
		heartbeats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_membership_heartbeats_total", Help: "Heartbeats sent to the leader, by result.",
		}, []string{"result"}),
		joins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_membership_joins_total", Help: "Requests to join that this member answered, by gRPC code.",
		}, []string{"code"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.members, m.alive, m.clockOffset, m.clockDistance, m.heartbeats, m.joins} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the membership's metrics: %w", err)
		}
	}
	return m, nil
}
