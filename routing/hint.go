package routing

import (
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/trust"
)

// hiddenDomain is the state of a trust domain that the caller does not see. Its instances are left out without a mention.
const hiddenDomain trust.State = 255

// Plan returns the plan for callers in a locality, in the revision that r reads. It is what a hint is made of.
func (m *Manager) Plan(r raftstore.Reader, service string, caller plan.Locality) (plan.Plan, error) {
	planned, _, err := m.PlanFor(r, service, caller, nil)
	return planned, err
}

// PlanFor returns the plan for callers in a locality who see the trust domains for which sees is true (nil: all), and the
// policy that it was made by. Instances that such callers do not see are left out without a word.
func (m *Manager) PlanFor(r raftstore.Reader, service string, caller plan.Locality, sees func(spiffeid.TrustDomain) bool) (plan.Plan, *plan.Policy, error) {
	s, err := m.scene(r, service, sees)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	return s.arranged().Plan(caller), s.policy, nil
}

// scene is all that the plans of a service are made of, for callers who see the same.
type scene struct {
	service *service
	policy  *plan.Policy
	// states are those of the domains of the service; hiddenDomain, where callers do not see the domain.
	states []trust.State
}

func (m *Manager) scene(r raftstore.Reader, name string, sees func(spiffeid.TrustDomain) bool) (scene, error) {
	s, err := m.catalog.service(r, name)
	if err != nil {
		return scene{}, err
	}
	policy, err := m.rules.policy(r, name)
	if err != nil {
		return scene{}, err
	}
	states, err := m.domains.of(r, m.trust, s.domains, m.now())
	if err != nil {
		return scene{}, err
	}
	for i, td := range s.domains {
		if sees != nil && !sees(td) {
			states[i] = hiddenDomain
		}
	}
	return scene{s, policy, states}, nil
}

// sameAs says whether two scenes make the same plans.
func (s scene) sameAs(o scene) bool {
	return s.service == o.service && s.policy == o.policy && slices.Equal(s.states, o.states)
}

// endpoints returns the instances that callers see as the arithmetic sees them, in order.
func (s scene) endpoints() []plan.Endpoint {
	out := make([]plan.Endpoint, 0, len(s.service.instances))
	for i := range s.service.instances {
		state := s.states[s.service.domainOf[i]]
		if state == hiddenDomain {
			continue
		}
		out = append(out, s.service.instances[i].Endpoint)
		out[len(out)-1].Trust = state
	}
	return out
}

// arranged returns the arrangement of the scene, which is made once.
func (s scene) arranged() *plan.Arrangement {
	return s.service.arrangements.Get(s.policy, s.states, s.endpoints)
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
