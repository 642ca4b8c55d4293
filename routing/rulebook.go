package routing

import (
	"slices"
	"sync"

	"github.com/ententehq/entente/raftstore"
)

// ruleBook finds the policy for a service: what its own rule says, then what the rule for all services says, then the
// configuration. Policies are made once for each state of the rules.
type ruleBook struct {
	configured Settings

	mu       sync.Mutex
	read     raftstore.Revision
	policies map[string]*Policy
}

func newRuleBook(configured Settings) *ruleBook {
	return &ruleBook{configured: configured, policies: make(map[string]*Policy)}
}

// policy returns the policy for a service in the revision that r reads. While rules stay as they are, it is the same one.
func (b *ruleBook) policy(r raftstore.Reader, service string) (*Policy, error) {
	revision := Rules.PrefixRevision(r, "")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read != revision {
		if revision < b.read {
			return b.make(r, service) // a reader of an older state
		}
		clear(b.policies)
		b.read = revision
	}
	// Services without a rule share the policy of all.
	name := AllServices
	if _, own, err := Rules.Get(r, service); err != nil {
		return nil, err
	} else if own {
		name = service
	}
	if p := b.policies[name]; p != nil {
		return p, nil
	}
	p, err := b.make(r, service)
	if err == nil {
		b.policies[name] = p
	}
	return p, err
}

func (b *ruleBook) make(r raftstore.Reader, service string) (*Policy, error) {
	s := b.configured
	for _, name := range []string{AllServices, service} {
		row, found, err := Rules.Get(r, name)
		if err != nil {
			return nil, err
		}
		if found {
			s = s.under(settingsFromRow(row.Value))
		}
	}
	return NewPolicy(s)
}

// under returns the settings with a rule laid over them. What the rule says of a region or place replaces what was said of the
// same one; of others it stays, behind what the rule says.
func (s Settings) under(rule Settings) Settings {
	if rule.OverprovisioningFactor != 0 || rule.FailoverThreshold != 0 {
		s.OverprovisioningFactor, s.FailoverThreshold = rule.OverprovisioningFactor, rule.FailoverThreshold
	}
	if rule.PanicThreshold != nil {
		s.PanicThreshold = rule.PanicThreshold
	}
	if rule.Stale != "" {
		s.Stale = rule.Stale
	}
	failover := slices.Clone(rule.Failover)
	for _, f := range s.Failover {
		if !slices.ContainsFunc(rule.Failover, func(own FailoverSetting) bool { return own.From == f.From }) {
			failover = append(failover, f)
		}
	}
	distribution := slices.Clone(rule.Distribution)
	replaced := make(map[Locality]bool, len(rule.Distribution)) // one place can be written in two ways
	for _, own := range rule.Distribution {
		if place, err := ParsePattern(own.From); err == nil {
			replaced[place] = true
		}
	}
	for _, d := range s.Distribution {
		if place, err := ParsePattern(d.From); err != nil || !replaced[place] {
			distribution = append(distribution, d)
		}
	}
	s.Failover, s.Distribution = failover, distribution
	return s
}
