package routing

import (
	"sync"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// ruleBook returns the policy of a service: its own rule over the rule for all services over the configuration. It
// caches the policies of one state of the rules.
type ruleBook struct {
	configured plan.Settings

	mu       sync.Mutex
	read     raftstore.Revision
	policies map[string]*plan.Policy
}

func newRuleBook(configured plan.Settings) *ruleBook {
	return &ruleBook{configured: configured, policies: make(map[string]*plan.Policy)}
}

// policy returns the policy of a service in the revision that r reads. As long as the rules do not change, it returns
// the same pointer.
func (b *ruleBook) policy(r raftstore.Reader, service string) (*plan.Policy, error) {
	revision := ruleTable.PrefixRevision(r, "")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read != revision {
		if revision < b.read {
			return b.build(r, service) // a reader of an older state
		}
		clear(b.policies)
		b.read = revision
	}
	// Services without a rule of their own share a policy.
	name := plan.AllServices
	if _, own, err := ruleTable.Get(r, service); err != nil {
		return nil, err
	} else if own {
		name = service
	}
	if p := b.policies[name]; p != nil {
		return p, nil
	}
	p, err := b.build(r, service)
	if err == nil {
		b.policies[name] = p
	}
	return p, err
}

func (b *ruleBook) build(r raftstore.Reader, service string) (*plan.Policy, error) {
	s := b.configured
	for _, name := range []string{plan.AllServices, service} {
		row, found, err := ruleTable.Get(r, name)
		if err != nil {
			return nil, err
		}
		if found {
			s = s.Overlay(plan.SettingsFromRow(row.Value))
		}
	}
	return plan.NewPolicy(s)
}
