package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/membership"
)

// Audit takes one line of the audit log. It is called from many goroutines. What it returns an error for is not done.
type Audit interface {
	Record(access.Event) error
}

// Contact knows how this member stands with the others. It is called from many goroutines.
type Contact interface {
	// LastHeard is when this member last heard from the leader, or led with a quorum; zero: not since it started.
	LastHeard() time.Time
	// ClockSane says whether this member's clock is that of a majority, within minutes; false until it is known.
	ClockSane() bool
}

// Config is what a [Manager] needs. Store, Member, Home, Keys or KeyDir, Contact, Conn and Audit are required.
type Config struct {
	Store  *raftstore.Store
	Member string
	// Home is the trust domain that names the members; it is created with Defaults if it is not there.
	Home spiffeid.TrustDomain
	// Defaults are the settings of a domain that is created without its own; zero fields take the package's defaults.
	Defaults plan.Settings
	// MinRefresh is the shortest refresh hint that a domain can have.
	MinRefresh time.Duration
	// SigningGrace is for how long this member signs after it last heard from the leader.
	SigningGrace time.Duration
	// Keys is where this member's private keys are kept; nil: a [keys.Folder] at KeyDir.
	Keys   keys.Store
	KeyDir string
	// RootTTL is the life of anchors that this member makes itself.
	RootTTL time.Duration
	// Upstream signs this member's CA certificates; nil: anchors of its own, kept with the keys.
	Upstream upstream.Upstream
	// AnchorApproval has a new anchor of the upstream wait until an operator approves it.
	AnchorApproval bool
	// IssueRate is how many SVIDs a second one caller can ask this member for, and IssueBurst how many at once; 0: the
	// package's defaults, a negative rate: no limit.
	IssueRate  float64
	IssueBurst int
	// LintSample has zlint look at one leaf in so many; 0: the package's default, negative: at none.
	LintSample int
	Contact    Contact
	// Conn returns the connection to a fellow member, on which its SigningService is served. It is not closed here.
	Conn func(memberID string) (grpc.ClientConnInterface, error)
	// Members returns the IDs of the members of the cluster, those that are down included; nil: those of [membership.Members].
	Members func(raftstore.Reader) ([]string, error)
	// Alive returns the IDs of the members that are heard from; nil: those of [membership.Alive].
	Alive func(raftstore.Reader) ([]string, error)
	// IsForeign says, inside a transaction, whether a trust domain is known as foreign; nil: none is.
	IsForeign func(r raftstore.Reader, td string) (bool, error)
	Audit     Audit
	// Acknowledgements knows what peers with streams have acknowledged; nil: there are no streams.
	Acknowledgements Acknowledgements

	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // nil: time.Now
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Store == nil || c.Contact == nil || c.Conn == nil || c.Audit == nil:
		return c, errors.New("authority: Store, Contact, Conn and Audit are required")
	case c.Home.IsZero():
		return c, errors.New("authority: the home trust domain is required")
	case c.Keys == nil && c.KeyDir == "":
		return c, errors.New("authority: a key store or a key folder is required")
	}
	if _, err := svid.MemberID(c.Home, c.Member); err != nil {
		return c, err
	}
	if _, err := bundle.ParseTrustDomain(c.Home.Name()); err != nil {
		return c, err
	}
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&c.Defaults.RefreshHint, plan.DefaultRefreshHint)
	def(&c.Defaults.CATTL, plan.DefaultCATTL)
	def(&c.Defaults.X509SVIDTTL, plan.DefaultX509SVIDTTL)
	def(&c.Defaults.JWTSVIDTTL, plan.DefaultJWTSVIDTTL)
	def(&c.MinRefresh, plan.DefaultMinRefresh)
	def(&c.SigningGrace, plan.DefaultSigningGrace)
	def(&c.RootTTL, plan.DefaultRootTTL)
	if c.IssueRate == 0 {
		c.IssueRate = DefaultIssueRate
	}
	if c.IssueBurst == 0 {
		c.IssueBurst = DefaultIssueBurst
	}
	if c.IssueBurst < 1 {
		return c, fmt.Errorf("issue_burst is %d; with less than 1 nobody gets an SVID", c.IssueBurst)
	}
	if c.LintSample == 0 {
		c.LintSample = DefaultLintSample
	}
	if c.SigningGrace < 0 {
		return c, fmt.Errorf("signing_grace is %v; it cannot be negative", c.SigningGrace)
	}
	if err := c.Defaults.Check(c.MinRefresh); err != nil {
		return c, err
	}
	if c.Upstream == nil && c.RootTTL < plan.RootLives*c.Defaults.CATTL {
		return c, fmt.Errorf("root_ttl is %v and ca_ttl %v; a root has to live for four times as long as what it signs", c.RootTTL, c.Defaults.CATTL)
	}
	if c.IsForeign == nil {
		c.IsForeign = func(raftstore.Reader, string) (bool, error) { return false, nil }
	}
	if c.Members == nil {
		c.Members = membersOf
	}
	if c.Alive == nil {
		c.Alive = membership.Alive
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// Manager keeps this member's authorities, and signs with them. Its services can be registered before it runs.
type Manager struct {
	config   Config
	log      hclog.Logger
	keys     keys.Store
	upstream upstream.Upstream
	// anchors is the upstream, where it knows anchors of its own; nil where it does not.
	anchors upstream.AnchorSource
	metrics *metrics
	sweeper sweeper
	// unswept says that keys were made since the last sweep, which may have come to nothing without a trace in the tables.
	unswept atomic.Bool
	limiter *limiter
	second  *second

	// changed fires when the tables changed and signing has followed.
	changed signal
	// signing is what signatures are made from, always of one revision.
	signing atomic.Pointer[signingState]
	// own are the SVIDs of the member itself.
	own ownSVIDs
	// states is what tendStatements knows, which alone touches it.
	states map[string]stated
	// making is held while a key is made that is in no table yet, and while keys that are in none are swept away. tendPrepared,
	// which sweeps itself and waits for the upstream, does not hold it while it makes keys.
	making sync.Mutex
	// resume is where the next round of tendPrepared begins, which alone touches it.
	resume string
	// troubles are why authorities could not be prepared, and alarmed what noteAlarms, which alone touches it, has told the log.
	troubles troubles
	alarmed  alarmLog
}

// New opens the key folder, if it is to keep the keys. [Manager.Run] does the rest.
func New(config Config) (*Manager, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	store := config.Keys
	if store == nil {
		if store, err = keys.OpenFolder(config.KeyDir); err != nil {
			return nil, err
		}
	}
	m := &Manager{config: config, log: config.Logger, keys: store, upstream: config.Upstream}
	if m.upstream == nil {
		m.upstream = upstream.NewSelfSigned(store, config.RootTTL)
	}
	m.anchors, _ = m.upstream.(upstream.AnchorSource)
	m.signing.Store(&signingState{})
	if m.metrics, err = newMetrics(config.Registerer, m); err != nil {
		return nil, fmt.Errorf("register the metrics of authorities: %w", err)
	}
	if m.limiter, err = newLimiter(config.IssueRate, config.IssueBurst, config.Now, config.Registerer); err != nil {
		return nil, fmt.Errorf("limit the callers: %w", err)
	}
	if m.second, err = newSecond(config.LintSample, config.Logger, config.Registerer); err != nil {
		return nil, fmt.Errorf("set up zlint: %w", err)
	}
	config.Store.SurviveRestore("authority", m.surviveRestore)
	config.Store.CountAsEmpty(m.founded)
	return m, nil
}

// Run keeps the authorities in order until ctx ends, whose error it returns.
func (m *Manager) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		tables := []raftstore.Prefix{table.Domains.Prefix(""), table.HostedBundles.Prefix(""), HostedHistory.Prefix(""), table.Authorities.Prefix(""), table.UpstreamAnchors.Prefix(""), table.Rotations.Prefix(""), table.RevokedAnchors.Prefix(""), membership.Members.Prefix("")}
		return feed.Latest(ctx, m.config.Store, tables, m.follow)
	})
	group.Go(func() error { return m.tend(ctx, "tend to this member's authorities", m.tendOwn) })
	group.Go(func() error { return m.tend(ctx, "prepare this member's next authorities", m.tendPrepared) })
	group.Go(func() error { return m.tend(ctx, "prepare this member's next JWT authorities", m.tendJWT) })
	group.Go(func() error { return m.tend(ctx, "watch over this member's authorities", m.noteAlarms) })
	if keys, ok := m.keys.(keys.Lossy); ok {
		group.Go(func() error { return m.watchLost(ctx, keys.Lost()) })
	}
	group.Go(func() error {
		return m.config.Store.WhileLeading(ctx, func(ctx context.Context) {
			// It ends with ctx, which is no failure.
			_ = m.tend(ctx, "end the authorities of lost members", m.tendLost)
		})
	})
	group.Go(func() error {
		return m.config.Store.WhileLeading(ctx, func(ctx context.Context) {
			_ = m.tend(ctx, "have the upstream revoke what was revoked", m.tendRevoked)
		})
	})
	group.Go(func() error { return m.tend(ctx, "follow the anchors of the upstream", m.tendAnchors) })
	group.Go(func() error { return m.followAnchors(ctx) })
	group.Go(func() error { return m.tend(ctx, "sign statements on bundles", m.tendStatements) })
	group.Go(func() error { return m.renewOwn(ctx) })
	group.Go(func() error { return m.second.run(ctx) })
	return group.Wait()
}

// follow takes over the state of the tables.
func (m *Manager) follow(view *raftstore.View) error {
	next, err := m.newSigningState(view, m.signing.Load())
	if err != nil {
		// A row that cannot be read must not stop the rest of the member.
		m.log.Error("cannot read the authorities; this member signs with what it knew before", "error", err)
		m.metrics.failures.WithLabelValues("read").Inc()
	} else {
		m.signing.Store(next)
	}
	m.changed.fire()
	return nil
}

// inUse says whether an anchor verifies an authority of this member, and which authorities need their keys. Those that
// were revoked need neither, and what is on the disk of them is of use to a thief alone.
func (m *Manager) inUse(view raftstore.Reader) (func(*x509.Certificate) bool, map[string]bool, error) {
	anchors, ids := map[string]bool{}, map[string]bool{}
	for row, err := range table.Authorities.All(view, "") {
		if err != nil {
			return nil, nil, err
		}
		if row.Value.GetMember() != m.config.Member || plan.State(row.Value.GetState()) == plan.Revoked {
			continue
		}
		ids[row.Value.GetId()] = true
		for _, anchor := range row.Value.GetAnchors() {
			anchors[string(anchor)] = true
		}
	}
	return func(c *x509.Certificate) bool { return anchors[string(c.Raw)] }, ids, nil
}

func membersOf(r raftstore.Reader) ([]string, error) {
	rows, err := membership.Members.List(r, "")
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.Key
	}
	return ids, nil
}
