package authority

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var home = spiffeid.RequireTrustDomainFromString("eu.example.org")

const (
	// testTimeout bounds the waits of tests. It only ends tests that would never pass: a loop that failed several times
	// on a busy machine waits for 45 seconds before it retries.
	testTimeout = 5 * time.Minute
	// pollInterval is the time between two checks of a condition without a notification.
	pollInterval = 20 * time.Millisecond
)

// fleet is a cluster of managers on one clock that the test sets.
type fleet struct {
	t       testing.TB
	dir     string
	adjust  func(*Config)
	mu      sync.Mutex
	ahead   time.Duration // the clock shows base plus ahead
	base    time.Time
	nodes   []*node
	removed map[string]bool
	repair  func(*node) // called for a member that is not idle; may be nil
}

// node is one member of the fleet.
type node struct {
	*Manager
	id          string
	store       *raftstore.Store
	registry    *prometheus.Registry
	audit       *ledger
	stop        func()
	mu          sync.Mutex
	down        bool
	silent      bool
	lastContact time.Time
	insane      bool
	skew        time.Duration
}

// newFleet starts one manager on each store.
func newFleet(t testing.TB, adjust func(*Config), stores ...*raftstore.Store) *fleet {
	f := prepareFleet(t, adjust, stores...)
	for _, c := range f.nodes {
		f.start(c)
	}
	f.settle()
	return f
}

// prepareFleet returns a fleet whose managers are not started.
func prepareFleet(t testing.TB, adjust func(*Config), stores ...*raftstore.Store) *fleet {
	f := &fleet{
		t: t, dir: t.TempDir(), adjust: adjust, base: time.Now().Truncate(time.Second),
		removed: map[string]bool{},
	}
	for _, store := range stores {
		f.nodes = append(f.nodes, &node{id: store.MemberID(), store: store, down: true})
	}
	return f
}

// newThree returns a fleet of three members.
func newThree(t *testing.T, adjust func(*Config)) *fleet {
	cluster := raftstoretest.NewCluster(t, 3)
	return newFleet(t, adjust, cluster.Store(0), cluster.Store(1), cluster.Store(2))
}

// newSingle returns a fleet of one member.
func newSingle(t *testing.T, adjust func(*Config)) (*fleet, *node) {
	f := newFleet(t, adjust, raftstoretest.New(t))
	return f, f.nodes[0]
}

func (f *fleet) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.base.Add(f.ahead)
}

func (f *fleet) config(c *node) Config {
	c.registry, c.audit = prometheus.NewRegistry(), &ledger{}
	config := Config{
		Store: c.store, Member: c.id, Home: home, KeyDir: filepath.Join(f.dir, c.id, "keys"),
		JWTKeyTTL: plan.DefaultCATTL, // so that tests see JWT keys rotate
		Contact: contact{
			f,
			c,
		}, Conn: func(id string) (grpc.ClientConnInterface, error) { return line{f, c.id, id}, nil },
		Members: func(raftstore.Reader) ([]string, error) { return f.members(), nil },
		Alive:   func(raftstore.Reader) ([]string, error) { return f.up(), nil },
		Audit:   c.audit, Logger: hclog.NewNullLogger(), Registerer: c.registry,
		Now: func() time.Time {
			var skew time.Duration
			c.is(func() bool { skew = c.skew; return true })
			return f.now().Add(skew)
		},
	}
	if f.adjust != nil {
		f.adjust(&config)
	}
	return config
}

func (f *fleet) start(c *node) {
	manager, err := New(f.config(c))
	require.NoError(f.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := manager.Run(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, raftstore.ErrClosed) {
			f.t.Errorf("member %s: %v", c.id, err)
		}
	}()
	c.Manager = manager
	var once sync.Once
	c.stop = func() { once.Do(func() { cancel(); <-ended }) }
	f.t.Cleanup(c.stop)
	c.set(func() { c.down = false })
}

// halt stops a member's manager. Its store and its keys remain.
func (f *fleet) halt(c *node) {
	c.stop()
	c.set(func() { c.down = true })
}

func (c *node) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (c *node) is(what func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return what()
}

func (c *node) isDown() bool { return c.is(func() bool { return c.down }) }

func (f *fleet) members() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []string
	for _, c := range f.nodes {
		if !f.removed[c.id] {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// up returns the members that run.
func (f *fleet) up() []string {
	return slices.DeleteFunc(f.members(), func(id string) bool {
		return slices.ContainsFunc(f.nodes, func(c *node) bool { return c.id == id && c.isDown() })
	})
}

func (f *fleet) remove(c *node) {
	f.halt(c)
	f.mu.Lock()
	f.removed[c.id] = true
	f.mu.Unlock()
	f.wake()
}

func (f *fleet) wake() {
	for _, c := range f.nodes {
		c.changed.Fire()
	}
}

// advance sets the clock forward and waits until the fleet is idle.
func (f *fleet) advance(d time.Duration) {
	f.mu.Lock()
	f.ahead += d
	f.mu.Unlock()
	f.wake()
	f.settle()
}

// settle waits until no running member has anything to do, and all sign from the newest state.
func (f *fleet) settle() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for quiet := false; !quiet; {
		for _, c := range f.nodes {
			f.settleNode(ctx, c)
		}
		quiet = !slices.ContainsFunc(f.nodes, func(c *node) bool { return !c.isDown() && !f.idle(ctx, c) })
	}
}

func (f *fleet) settleNode(ctx context.Context, c *node) {
	f.t.Helper()
	for {
		if f.repair != nil {
			f.repair(c)
		}
		changed := c.changed.Next() // before the check: every change of the tables fires it
		if c.isDown() || f.idle(ctx, c) {
			return
		}
		if err := loop.WaitFor(ctx, changed, pollInterval); err != nil {
			f.t.Fatalf("member %s is not idle: %v", c.id, err)
		}
	}
}

// idle reports whether a member has nothing to do, according to the tables.
func (f *fleet) idle(ctx context.Context, c *node) bool {
	view, err := c.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return false
	}
	if hosted, err := table.Hosts(view, home.Name()); err != nil || !hosted {
		return false
	}
	newest := max(table.Authorities.PrefixRevision(view, ""), table.HostedBundles.PrefixRevision(view, ""),
		table.Domains.PrefixRevision(view, ""))
	if c.issuer.State().Revision < newest {
		return false
	}
	for domain, err := range table.Domains.All(view, "") {
		if err != nil || !f.idleIn(ctx, c, view, domain.Value) {
			return false
		}
	}
	return true
}

// idleIn reports whether a member has nothing to do in a domain.
func (f *fleet) idleIn(ctx context.Context, c *node, view *raftstore.View, domain *statev1.Domain) bool {
	situation, _, err := c.executor.situation(view, domain, f.now())
	if err != nil {
		return false
	}
	situation.Peers = c.reconciler.peers.of(ctx, domain.GetTrustDomain(), situation, false)
	if actions, _ := plan.Next(situation); len(actions) > 0 {
		return false
	}
	if !c.isInsane() {
		if actions, _, err := c.anchors.Due(view, domain, f.now()); err != nil || len(actions) > 0 {
			return false
		}
	}
	hasKey, err := c.preparer.rootKeys(ctx, domain.GetTrustDomain())
	if err != nil {
		return false
	}
	succession, err := c.executor.succession(view, domain, hasKey, f.now())
	if err != nil {
		return false
	}
	if do, _, _ := succession.Next(); do == plan.DropAnchor || do != "" && c.preparer.roots != nil && !c.isInsane() {
		return false
	}
	actions, dropped, _, err := c.executor.dueForLost(view, domain, f.now())
	return err == nil && len(actions)+len(dropped) == 0
}

func (c *node) isInsane() bool { return c.is(func() bool { return c.insane }) }

// read returns the newest state. Reads that fail are repeated, since leadership can change on a busy machine.
func (f *fleet) read() *raftstore.View {
	f.t.Helper()
	var view *raftstore.View
	f.retry(func(ctx context.Context) (err error) {
		view, err = f.nodes[0].store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
		return err
	})
	return view
}

// retry calls do until it succeeds.
func (f *fleet) retry(do func(context.Context) error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for {
		err := do(ctx)
		if err == nil {
			return
		}
		if loop.WaitFor(ctx, nil, pollInterval) != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fleet) bundle(td spiffeid.TrustDomain) *bundle.Bundle {
	f.t.Helper()
	b, err := publish.HostedBundle(f.read(), td.Name())
	require.NoError(f.t, err)
	require.NotNil(f.t, b, "the bundle of %s", td)
	return b
}

// list returns the authorities of a domain as the API shows them.
func (f *fleet) list(td spiffeid.TrustDomain) (authorities []*ententev1.Authority) {
	f.t.Helper()
	f.retry(func(ctx context.Context) error {
		request := &ententev1.ListAuthoritiesRequest{TrustDomain: td.Name()}
		response, err := f.nodes[0].AuthorityService().ListAuthorities(ctx, request)
		authorities = response.GetAuthorities()
		return err
	})
	return authorities
}
