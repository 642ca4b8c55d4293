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

// patience bounds the waits of tests: far longer than anything takes on a busy machine.
const testPatience = 30 * time.Second

// fleet is a cluster of managers on one clock that the test sets.
type fleet struct {
	t       testing.TB
	dir     string
	adjust  func(*Config)
	mu      sync.Mutex
	ahead   time.Duration // how far the clock is ahead of the machine's when it stands still at base
	base    time.Time
	crew    []*crewman
	removed map[string]bool
	mend    func(*crewman) // what a test does to a member on its way to rest, if anything
}

// crewman is one member of the fleet.
type crewman struct {
	*Manager
	id       string
	store    *raftstore.Store
	registry *prometheus.Registry
	audit    *ledger
	stop     func()
	mu       sync.Mutex
	down     bool
	silent   bool
	heard    time.Time
	insane   bool
	skew     time.Duration
}

// newFleet starts one manager on each store.
func newFleet(t testing.TB, adjust func(*Config), stores ...*raftstore.Store) *fleet {
	f := prepareFleet(t, adjust, stores...)
	for _, c := range f.crew {
		f.start(c)
	}
	f.settle()
	return f
}

// prepareFleet is a fleet of which nobody was started.
func prepareFleet(t testing.TB, adjust func(*Config), stores ...*raftstore.Store) *fleet {
	f := &fleet{t: t, dir: t.TempDir(), adjust: adjust, base: time.Now().Truncate(time.Second), removed: map[string]bool{}}
	for _, store := range stores {
		f.crew = append(f.crew, &crewman{id: store.MemberID(), store: store, down: true})
	}
	return f
}

// newThree is a fleet of three members.
func newThree(t *testing.T, adjust func(*Config)) *fleet {
	cluster := raftstoretest.NewCluster(t, 3)
	return newFleet(t, adjust, cluster.Store(0), cluster.Store(1), cluster.Store(2))
}

// newOne is a fleet of one.
func newOne(t *testing.T, adjust func(*Config)) (*fleet, *crewman) {
	f := newFleet(t, adjust, raftstoretest.New(t))
	return f, f.crew[0]
}

func (f *fleet) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.base.Add(f.ahead)
}

func (f *fleet) config(c *crewman) Config {
	c.registry, c.audit = prometheus.NewRegistry(), &ledger{}
	config := Config{
		Store: c.store, Member: c.id, Home: home, KeyDir: filepath.Join(f.dir, c.id, "keys"),
		Contact: contact{f, c}, Conn: func(id string) (grpc.ClientConnInterface, error) { return line{f, c.id, id}, nil },
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

func (f *fleet) start(c *crewman) {
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

// halt stops a member's manager; its store and its keys stay.
func (f *fleet) halt(c *crewman) {
	c.stop()
	c.set(func() { c.down = true })
}

func (c *crewman) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (c *crewman) is(what func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return what()
}

func (c *crewman) isDown() bool { return c.is(func() bool { return c.down }) }

func (f *fleet) members() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []string
	for _, c := range f.crew {
		if !f.removed[c.id] {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// up are the members that run.
func (f *fleet) up() []string {
	return slices.DeleteFunc(f.members(), func(id string) bool {
		return slices.ContainsFunc(f.crew, func(c *crewman) bool { return c.id == id && c.isDown() })
	})
}

func (f *fleet) remove(c *crewman) {
	f.halt(c)
	f.mu.Lock()
	f.removed[c.id] = true
	f.mu.Unlock()
	f.wake()
}

func (f *fleet) wake() {
	for _, c := range f.crew {
		c.changed.Fire()
	}
}

// advance sets the clock forward and waits until everybody has done what there is to do.
func (f *fleet) advance(d time.Duration) {
	f.mu.Lock()
	f.ahead += d
	f.mu.Unlock()
	f.wake()
	f.settle()
}

// settle waits until no running member has anything to do, and signs from the newest state.
func (f *fleet) settle() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	for _, c := range f.crew {
		for {
			if f.mend != nil {
				f.mend(c)
			}
			// Taken before the look: every change of the tables fires it.
			changed := c.changed.Next()
			if c.isDown() || f.rests(ctx, c) {
				break
			}
			if err := loop.WaitFor(ctx, changed, 5*time.Millisecond); err != nil {
				f.t.Fatalf("member %s does not come to rest: %v", c.id, err)
			}
		}
	}
	if !f.allRest(ctx) {
		f.settle()
	}
}

func (f *fleet) allRest(ctx context.Context) bool {
	return !slices.ContainsFunc(f.crew, func(c *crewman) bool { return !c.isDown() && !f.rests(ctx, c) })
}

// rests says whether a member has nothing to do, as far as the tables go.
func (f *fleet) rests(ctx context.Context, c *crewman) bool {
	view, err := c.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return false
	}
	if hosted, err := table.Hosts(view, home.Name()); err != nil || !hosted {
		return false
	}
	for _, prefix := range []raftstore.Revision{table.Authorities.PrefixRevision(view, ""), table.HostedBundles.PrefixRevision(view, ""), table.Domains.PrefixRevision(view, "")} {
		if c.issuer.State().Revision < prefix {
			return false
		}
	}
	for domain, err := range table.Domains.All(view, "") {
		if err != nil {
			return false
		}
		situation, _, err := c.executor.situation(view, domain.Value, f.now())
		if err != nil {
			return false
		}
		situation.Peers = c.reconciler.peers.of(ctx, domain.Key, situation, false)
		if actions, _ := plan.Next(situation); len(actions) > 0 {
			return false
		}
		if !c.isInsane() {
			if actions, _, err := c.anchors.Due(view, domain.Value, f.now()); err != nil || len(actions) > 0 {
				return false
			}
		}
		if actions, _, err := c.executor.dueForLost(view, domain.Value, f.now()); err != nil || len(actions) > 0 {
			return false
		}
	}
	return true
}

func (c *crewman) isInsane() bool { return c.is(func() bool { return c.insane }) }

func (f *fleet) bundle(td spiffeid.TrustDomain) *bundle.Bundle {
	f.t.Helper()
	view, err := f.crew[0].store.Read(context.Background(), raftstore.ReadOptions{Linearizable: true})
	require.NoError(f.t, err)
	b, err := publish.HostedBundle(view, td.Name())
	require.NoError(f.t, err)
	require.NotNil(f.t, b, "the bundle of %s", td)
	return b
}

// list returns the authorities of a domain as the API shows them.
func (f *fleet) list(td spiffeid.TrustDomain) []*ententev1.Authority {
	f.t.Helper()
	response, err := f.crew[0].AuthorityService().ListAuthorities(context.Background(), &ententev1.ListAuthoritiesRequest{TrustDomain: td.Name()})
	require.NoError(f.t, err)
	return response.GetAuthorities()
}
