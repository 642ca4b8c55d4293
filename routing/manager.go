package routing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// Audit keeps what the room does by itself, which is the end of leases, and the changes of health that holders of leases report.
// What it refuses to record is not done. It is called from any goroutine.
type Audit interface {
	Record(access.Event) error
}

// Config is what a Manager stands on. Store, Trust and Audit are required.
type Config struct {
	Store *raftstore.Store
	Trust Trust
	Audit Audit
	// Agreements tells under which agreements services are exported and imported. Nil: there are none.
	Agreements Agreements
	// Leader tells what members reported to it, for listings; nil: nothing is asked.
	Leader Leader
	// ImportTTL is for how long imported instances are offered although no stream confirms them; 0: [DefaultImportTTL].
	ImportTTL time.Duration
	// Settings are the policy where no rule says otherwise. The zero value asks for the defaults.
	Settings plan.Settings
	// Sight says what the caller of a hint sees; nil: [access.ScopeFrom].
	Sight func(context.Context) access.Scope
	// LastHeard says when this member last heard from the leader, or led with a majority. A member that has not for a
	// while takes no renewals, which it could not pass on. Nil: always now.
	LastHeard func() time.Time
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Logger and Registerer may be nil.
	Logger     hclog.Logger
	Registerer prometheus.Registerer
}

// Manager keeps the instances of services and answers for them. Make it with New, register its Leases with the
// membership, serve it as ententev1.RoutingServiceServer, and Run it.
type Manager struct {
	store      *raftstore.Store
	trust      Trust
	audit      Audit
	agreements Agreements
	importTTL  time.Duration
	rules      *ruleBook
	sight      func(context.Context) access.Scope
	lastHeard  func() time.Time
	now        func() time.Time
	log        hclog.Logger
	metrics    *metrics
	catalog    *catalog
	hints      *hintCache
	domains    *domainStates
	counts     counts
	replacing  chan struct{}
	over       chan []staging
	renewals   *renewals
	ledger     *ledger
	shelf      *shelf
	carrying   *carrying
	sightings  *importLedger
	answers    *answerLedger
	leader     Leader
}

// New makes the manager of a member.
func New(c Config) (*Manager, error) {
	if c.Store == nil || c.Trust == nil || c.Audit == nil {
		return nil, errors.New("routing: a store, the trust states and an audit log are required")
	}
	if _, err := plan.NewPolicy(c.Settings); err != nil {
		return nil, fmt.Errorf("the configuration of routing: %w", err)
	}
	m := &Manager{
		store: c.Store, trust: c.Trust, audit: c.Audit, lastHeard: c.LastHeard, now: c.Now, log: c.Logger,
		rules: newRuleBook(c.Settings), catalog: newCatalog(), hints: newHintCache(), domains: newDomainStates(),
		renewals: newRenewals(), ledger: newLedger(), replacing: make(chan struct{}, maxReplacing), over: make(chan []staging),
		shelf: newShelf(), carrying: newCarrying(), sightings: newImportLedger(), answers: newAnswerLedger(), leader: c.Leader,
	}
	if m.importTTL = c.ImportTTL; m.importTTL == 0 {
		m.importTTL = DefaultImportTTL
	}
	if m.agreements = c.Agreements; m.agreements == nil {
		m.agreements = noAgreements{}
	}
	if m.sight = c.Sight; m.sight == nil {
		m.sight = access.ScopeFrom
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.lastHeard == nil {
		m.lastHeard = m.now
	}
	if m.log == nil {
		m.log = hclog.NewNullLogger()
	}
	var err error
	if m.metrics, err = newMetrics(c.Registerer, m); err != nil {
		return nil, fmt.Errorf("register the metrics of routing: %w", err)
	}
	m.store.SurviveRestore("routing", m.surviveRestore)
	return m, nil
}

// Leases is the section "leases" of the heartbeats between members.
func (m *Manager) Leases() *LeaseSection {
	return &LeaseSection{renewals: m.renewals, ledger: m.ledger, now: m.now, refused: func(member string, err error) {
		m.log.Warn("a report of renewals is refused", "member", member, "error", err)
	}}
}

// Run ends the leases that nobody renews, while this member leads. It returns when ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.store.WhileLeading(ctx, m.sweepLeases) })
	g.Go(func() error { return m.store.WhileLeading(ctx, m.sweepImports) })
	g.Go(func() error { return m.followShared(ctx) })
	g.Go(func() error { return m.clearOver(ctx) })
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("routing stops: %w", err)
	}
	return nil
}
