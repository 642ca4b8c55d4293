package routing

import (
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// Plan returns the plan for callers in a locality, in the revision that r reads. It is what a hint is made of.
func (m *Manager) Plan(r raftstore.Reader, service string, caller Locality) (Plan, error) {
	plan, _, err := m.PlanFor(r, service, caller, nil)
	return plan, err
}

// PlanFor returns the plan for callers in a locality who see the trust domains for which sees is true (nil: all), and the
// policy that it was made by. Instances that such callers do not see are left out without a word.
func (m *Manager) PlanFor(r raftstore.Reader, service string, caller Locality, sees func(spiffeid.TrustDomain) bool) (Plan, *Policy, error) {
	endpoints, policy, err := m.scene(r, service, sees)
	if err != nil {
		return Plan{}, nil, err
	}
	return policy.Plan(caller, endpoints), policy, nil
}

// scene returns the instances of a service as the arithmetic sees them, and the policy for it.
func (m *Manager) scene(r raftstore.Reader, service string, sees func(spiffeid.TrustDomain) bool) ([]Endpoint, *Policy, error) {
	s, err := m.catalog.service(r, service)
	if err != nil {
		return nil, nil, err
	}
	policy, err := m.rules.policy(r, service)
	if err != nil {
		return nil, nil, err
	}
	states, err := m.domains.of(r, m.trust, s.domains, m.now())
	if err != nil {
		return nil, nil, err
	}
	return s.endpoints(states, sees), policy, nil
}

// endpoints returns the instances as the arithmetic sees them, in order of address; states are those of s.domains.
func (s *service) endpoints(states []TrustState, sees func(spiffeid.TrustDomain) bool) []Endpoint {
	hidden := make([]bool, len(s.domains))
	for i, td := range s.domains {
		hidden[i] = sees != nil && !sees(td)
	}
	out := make([]Endpoint, 0, len(s.instances))
	for i := range s.instances {
		domain := s.domainOf[i]
		if hidden[domain] {
			continue
		}
		out = append(out, s.instances[i].Endpoint)
		out[len(out)-1].Trust = states[domain]
	}
	return out
}

// Prefixes names all that plans depend on.
func (m *Manager) Prefixes() []raftstore.Prefix {
	return append([]raftstore.Prefix{
		Instances.Prefix(""), Sets.Prefix(""), Leases.Prefix(""), Rules.Prefix(""), Imports.Prefix(""), ImportedSets.Prefix(""), ImportSources.Prefix(""),
	}, m.trust.Prefixes()...)
}

// prefixesOf names all that the plans of one service depend on.
func (m *Manager) prefixesOf(service string) []raftstore.Prefix {
	own := servicePrefix(service)
	return append([]raftstore.Prefix{
		Instances.Prefix(own), Sets.Prefix(own), Leases.Prefix(""), Rules.Prefix(""), Imports.Prefix(own), ImportedSets.Prefix(own), ImportSources.Prefix(""),
	}, m.trust.Prefixes()...)
}

// Touched says which service a changed row of [Manager.Prefixes] is of; false: it may be of any.
func (m *Manager) Touched(change raftstore.Change) (service string, ok bool) {
	switch change.Table {
	case Instances.Name(), Sets.Name(), Imports.Name(), ImportedSets.Name():
		service, _, ok = strings.Cut(change.Key, "/")
		return service, ok
	case Rules.Name():
		return change.Key, change.Key != AllServices
	}
	return "", false
}

// Services lists the names of all services that have an instance, sorted.
func (m *Manager) Services(r raftstore.Reader) ([]string, error) {
	list, err := decode(r, "")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range list {
		if len(names) == 0 || names[len(names)-1] != i.Service {
			names = append(names, i.Service)
		}
	}
	slices.Sort(names) // keys are in order of bytes, and '-' and '.' come before the '/' that ends a name
	return slices.Compact(names), nil
}

// hint returns the message of the API for a plan: what may be called, in order, and what not, and why.
func hint(service string, caller Locality, revision raftstore.Revision, plan Plan) *ententev1.Hint {
	h := &ententev1.Hint{Service: service, Locality: caller.Proto(), Revision: uint64(revision), Reason: plan.Reason}
	for i, p := range plan.Priorities {
		out := &ententev1.HintPriority{Priority: uint32(i), Load: p.Load, DegradedLoad: p.DegradedLoad, Panic: p.Panic}
		for _, l := range p.Localities {
			share := &ententev1.HintLocality{Locality: l.Locality.Proto(), Share: l.Share, DegradedShare: l.DegradedShare}
			for _, e := range l.Endpoints {
				if !p.Offered(e) {
					h.Excluded = append(h.Excluded, exclusion(e, e.why()))
					continue
				}
				share.Endpoints = append(share.Endpoints, &ententev1.HintEndpoint{
					Address: e.Address.String(), SpiffeId: e.ID.String(), Health: ententev1.Health(e.Health),
					Weight: e.Weight, Freshness: e.Trust.Freshness(), Origin: e.Origin,
				})
			}
			if len(share.Endpoints) > 0 {
				out.Localities = append(out.Localities, share)
			}
		}
		h.Priorities = append(h.Priorities, out)
	}
	for _, x := range plan.Excluded {
		h.Excluded = append(h.Excluded, exclusion(x.Endpoint, x.Reason))
	}
	return h
}

func exclusion(e Endpoint, reason string) *ententev1.HintExclusion {
	return &ententev1.HintExclusion{Address: e.Address.String(), SpiffeId: e.ID.String(), Reason: reason, Origin: e.Origin}
}
