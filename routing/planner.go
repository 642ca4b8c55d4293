package routing

import (
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/trust/standing"
)

// Planner makes plans from the tables. It is the source of xDS. It is safe for concurrent use.
type Planner struct {
	catalog *registry.Catalog
	rules   *ruleBook
	trust   Trust
	domains *domainStates
	now     func() time.Time
}

// hiddenDomain is the state of a trust domain that the caller does not see. Its instances are left out without a
// mention.
const hiddenDomain standing.State = 255

// PlanFor returns the plan of a service for callers in a locality, in the revision that r reads, and the policy of the
// plan. Callers see the trust domains for which sees returns true, or all if sees is nil. Instances that they do not
// see are left out without a mention.
func (p *Planner) PlanFor(
	r raftstore.Reader, service string, caller plan.Locality, sees func(spiffeid.TrustDomain) bool,
) (plan.Plan, *plan.Policy, error) {
	s, err := p.snapshot(r, service, sees)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	return s.arrangement().Plan(caller), s.policy, nil
}

// snapshot is everything that the plans of a service depend on, for callers who see the same trust domains.
type snapshot struct {
	service *registry.Service
	policy  *plan.Policy
	// states are those of the domains of the service, or hiddenDomain.
	states []standing.State
}

func (p *Planner) snapshot(r raftstore.Reader, name string, sees func(spiffeid.TrustDomain) bool) (snapshot, error) {
	s, err := p.catalog.Service(r, name)
	if err != nil {
		return snapshot{}, err
	}
	policy, err := p.rules.policy(r, name)
	if err != nil {
		return snapshot{}, err
	}
	states, err := p.domains.of(r, p.trust, s.Domains, p.now())
	if err != nil {
		return snapshot{}, err
	}
	for i, td := range s.Domains {
		if sees != nil && !sees(td) {
			states[i] = hiddenDomain
		}
	}
	return snapshot{s, policy, states}, nil
}

// sameAs reports whether two snapshots lead to the same plans.
func (s snapshot) sameAs(o snapshot) bool {
	return s.service == o.service && s.policy == o.policy && slices.Equal(s.states, o.states)
}

// endpoints returns the endpoints that callers see, in order.
func (s snapshot) endpoints() []plan.Endpoint {
	endpoints := make([]plan.Endpoint, 0, len(s.service.Instances))
	for i := range s.service.Instances {
		state := s.states[s.service.DomainOf[i]]
		if state == hiddenDomain {
			continue
		}
		endpoints = append(endpoints, s.service.Instances[i].Endpoint)
		endpoints[len(endpoints)-1].Trust = state
	}
	return endpoints
}

// arrangement returns the arrangement of the endpoints, which is cached.
func (s snapshot) arrangement() *plan.Arrangement {
	return s.service.Arrangements.Get(s.policy, s.states, s.endpoints)
}

// Services returns the sorted names of all services that have an instance.
func (p *Planner) Services(r raftstore.Reader) ([]string, error) {
	list, err := registry.List(r)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range list {
		if len(names) == 0 || names[len(names)-1] != i.Service {
			names = append(names, i.Service)
		}
	}
	slices.Sort(names) // keys are in order of bytes, where '-' and '.' precede the '/' that ends a name
	return slices.Compact(names), nil
}

// Prefixes lists everything that plans depend on.
func (p *Planner) Prefixes() []raftstore.Prefix {
	return slices.Concat(registry.Prefixes(), []raftstore.Prefix{ruleTable.Prefix("")}, p.trust.Prefixes())
}

// prefixesOf lists everything that the plans of one service depend on.
func (p *Planner) prefixesOf(service string) []raftstore.Prefix {
	return slices.Concat(registry.PrefixesOf(service), []raftstore.Prefix{ruleTable.Prefix("")}, p.trust.Prefixes())
}

// Affected returns the services whose plans a changed row of Prefixes affects. The reader is at least as new as the
// change. If known is false, any service may be affected.
func (p *Planner) Affected(r raftstore.Reader, change raftstore.Change) (services []string, known bool) {
	if change.Table == ruleTable.Name() {
		return []string{change.Key}, change.Key != plan.AllServices
	}
	return registry.Affected(r, change)
}
