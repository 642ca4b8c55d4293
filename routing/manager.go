package routing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ententehq/entente/access/audit"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/exchange"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/registry/preserve"
)

// Config is what a [Manager] needs. Store, Trust and Audit are required.
type Config struct {
	Store *raftstore.Store
	Trust Trust
	Audit audit.Recorder
	// Agreements returns the agreements under which services are exported and imported. If nil, there are none.
	Agreements exchange.Agreements
	// Leader is queried for what members reported to it. If nil, listings contain nothing of it.
	Leader exchange.Leader
	// ImportTTL is how long imported instances are offered without a stream that confirms them. If 0, it is
	// [exchange.DefaultImportTTL].
	ImportTTL time.Duration
	// SelfPreservation is as in [registry.Config].
	SelfPreservation preserve.Threshold
	// Settings are the policy where no rule applies. The zero value stands for the defaults.
	Settings plan.Settings
	// Scope returns which trust domains the caller of a hint or a query sees. If nil, it is [access.ScopeFrom].
	Scope func(context.Context) access.Scope
	// LastContact returns when this member last had contact with the leader, or led with a majority. If nil, contact is
	// always recent.
	LastContact func() time.Time
	// Now is the clock; if nil, time.Now.
	Now func() time.Time
	// Logger and Registerer may be nil.
	Logger     hclog.Logger
	Registerer prometheus.Registerer
}

// Manager holds the routing of one member. Make it with New, register the sections of its Registry and its Exchange
// with the membership, serve it with NewServer, and call Run.
type Manager struct {
	*Planner
	Registry *registry.Registry
	Exchange *exchange.Exchange

	hintServer *hintServer
	ruleServer *ruleServer
}

// New returns the routing of a member.
func New(c Config) (*Manager, error) {
	if c.Store == nil || c.Trust == nil || c.Audit == nil {
		return nil, errors.New("routing: a store, the trust states and an audit log are required")
	}
	if _, err := plan.NewPolicy(c.Settings); err != nil {
		return nil, fmt.Errorf("the configuration of routing: %w", err)
	}
	if c.Scope == nil {
		c.Scope = access.ScopeFrom
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	reg, err := registry.New(registry.Config{
		Store: c.Store, Audit: c.Audit, Scope: c.Scope, LastContact: c.LastContact, Now: c.Now, Logger: c.Logger,
		Registerer: c.Registerer, SelfPreservation: c.SelfPreservation,
	})
	if err != nil {
		return nil, err
	}
	exch, err := exchange.New(exchange.Config{
		Store: c.Store, Registry: reg, Audit: c.Audit, Agreements: c.Agreements, Leader: c.Leader,
		ImportTTL: c.ImportTTL, LastContact: c.LastContact, Now: c.Now, Logger: c.Logger, Registerer: c.Registerer,
	})
	if err != nil {
		return nil, err
	}
	rules := newRuleBook(c.Settings)
	planner := &Planner{catalog: reg.Catalog, rules: rules, trust: c.Trust, domains: newDomainStates(), now: c.Now}
	hints := newHintServer(c.Store, planner, c.Scope)
	if c.Registerer != nil {
		if err := c.Registerer.Register(hints.counter); err != nil {
			return nil, fmt.Errorf("register the metrics of routing: %w", err)
		}
	}
	return &Manager{
		Planner: planner, Registry: reg, Exchange: exch, hintServer: hints,
		ruleServer: &ruleServer{store: c.Store, rules: rules, now: c.Now},
	}, nil
}

// Run runs the loops of the registry and of the exchange. It returns when ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.Registry.Run(ctx) })
	g.Go(func() error { return m.Exchange.Run(ctx) })
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("routing stops: %w", err)
	}
	return nil
}

// Server serves ententev1.RoutingService. Each embedded part serves its share of the calls.
type Server struct {
	unimplemented
	*registry.Registrar
	*registry.Replacer
	*registry.LeaseKeeper
	*exchange.ExportServer
	*exchange.ImportServer
	*hintServer
	*ruleServer
	*whatIfServer
}

// unimplemented lies deeper in Server than the parts, whose methods therefore take precedence.
type unimplemented struct {
	ententev1.UnimplementedRoutingServiceServer
}

var _ ententev1.RoutingServiceServer = (*Server)(nil)

// NewServer returns the service of a manager.
func NewServer(m *Manager) *Server {
	return &Server{
		Registrar: m.Registry.Registrar, Replacer: m.Registry.Replacer, LeaseKeeper: m.Registry.Leases,
		ExportServer: m.Exchange.Exports, ImportServer: m.Exchange.Imports,
		hintServer: m.hintServer, ruleServer: m.ruleServer,
		whatIfServer: &whatIfServer{store: m.hintServer.store, planner: m.Planner, scope: m.hintServer.scope},
	}
}
