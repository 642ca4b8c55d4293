package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Envoy's defaults, in percent.
const (
	DefaultOverprovisioning = 140
	DefaultPanicThreshold   = 50
)

const (
	// Below 100 a priority that is wholly healthy would spill; 10000 is a failover threshold of one percent.
	minOverprovisioning = 100
	maxOverprovisioning = 10000
	// maxRules bounds what each caller is compared with for each hint.
	maxRules = 256
)

// StaleMode says what becomes of an instance whose bundle has gone stale.
type StaleMode string

const (
	// StaleDemote moves it behind every instance whose trust is fresh.
	StaleDemote StaleMode = "demote"
	// StaleKeep leaves it where it is.
	StaleKeep StaleMode = "keep"
	// StaleDrop leaves it out.
	StaleDrop StaleMode = "drop"
)

// Settings is a policy as configuration spells it. The zero value asks for the defaults.
type Settings struct {
	// OverprovisioningFactor, in percent, is that, by which a priority is taken to be stronger than it needs to be;
	// 0: 140. FailoverThreshold, in percent of healthy instances, is another way to say it (the factor is 10000 divided
	// by it); at most one of the two is set.
	OverprovisioningFactor int
	FailoverThreshold      int
	// PanicThreshold is the percentage of available instances below which a priority is in panic; 0 turns panic off,
	// nil: 50.
	PanicThreshold *int
	// Stale is what becomes of instances whose trust is stale; empty: demote.
	Stale StaleMode
	// Failover orders the foreign regions for callers in a region.
	Failover []FailoverSetting
	// Distribution splits load by fixed percentages; the first whose From holds the caller counts.
	Distribution []DistributionSetting
}

// FailoverSetting sends callers of one region to the named ones, in that order, before any other.
type FailoverSetting struct {
	From string
	To   []string
}

// DistributionSetting splits the load of the callers in a place, by percentages that add up to 100. Places are
// localities, which stand for all within them, or * for everywhere.
type DistributionSetting struct {
	From string
	To   map[string]int
}

// Policy holds the rules by which instances become a hint. It is immutable; use NewPolicy or DefaultPolicy.
type Policy struct {
	factor       uint64
	panicBelow   uint64
	stale        StaleMode
	failover     map[string][]string
	distribution []distribution
}

type distribution struct {
	from    Locality
	targets []target
}

type target struct {
	place   Locality
	percent uint64
}

// DefaultPolicy is the policy of a cluster that configures none.
func DefaultPolicy() *Policy {
	return &Policy{factor: DefaultOverprovisioning, panicBelow: DefaultPanicThreshold, stale: StaleDemote}
}

// Overprovisioning is the factor of the policy, in percent; xDS clients are told it, so that both sides agree.
func (p *Policy) Overprovisioning() uint32 { return uint32(p.factor) }

// PanicThreshold is the percentage below which a priority is in panic; 0: never.
func (p *Policy) PanicThreshold() uint32 { return uint32(p.panicBelow) }

// NewPolicy checks settings whole. The error names the setting and its remedy.
func NewPolicy(s Settings) (*Policy, error) {
	p := DefaultPolicy()
	switch {
	case s.OverprovisioningFactor != 0 && s.FailoverThreshold != 0:
		return nil, fmt.Errorf(
			"overprovisioning_factor %d and failover_threshold %d say the same thing twice; set one of them",
			s.OverprovisioningFactor,
			s.FailoverThreshold,
		)
	case s.FailoverThreshold != 0:
		if s.FailoverThreshold < 1 || s.FailoverThreshold > 100 {
			return nil, fmt.Errorf("failover_threshold is %d; it is a percentage from 1 to 100", s.FailoverThreshold)
		}
		p.factor = uint64(10000 / s.FailoverThreshold)
	case s.OverprovisioningFactor != 0:
		if s.OverprovisioningFactor < minOverprovisioning || s.OverprovisioningFactor > maxOverprovisioning {
			return nil, fmt.Errorf(
				"overprovisioning_factor is %d; it is a percentage from %d to %d",
				s.OverprovisioningFactor,
				minOverprovisioning,
				maxOverprovisioning,
			)
		}
		p.factor = uint64(s.OverprovisioningFactor)
	}
	if s.PanicThreshold != nil {
		if *s.PanicThreshold < 0 || *s.PanicThreshold > 100 {
			return nil, fmt.Errorf("panic_threshold is %d; it is a percentage from 0 (off) to 100", *s.PanicThreshold)
		}
		p.panicBelow = uint64(*s.PanicThreshold)
	}
	switch s.Stale {
	case "":
	case StaleDemote, StaleKeep, StaleDrop:
		p.stale = s.Stale
	default:
		return nil, fmt.Errorf("stale is %q; write demote, keep or drop", Clip(string(s.Stale)))
	}
	if len(s.Failover) > maxRules || len(s.Distribution) > maxRules {
		return nil, fmt.Errorf(
			"there are %d failover and %d distribution rules; %d of each are allowed",
			len(s.Failover),
			len(s.Distribution),
			maxRules,
		)
	}
	var err error
	if p.failover, err = failoverRules(s.Failover); err != nil {
		return nil, err
	}
	if p.distribution, err = distributionRules(s.Distribution); err != nil {
		return nil, err
	}
	return p, nil
}

func failoverRules(settings []FailoverSetting) (map[string][]string, error) {
	rules := make(map[string][]string, len(settings))
	for _, f := range settings {
		if err := checkSegment(f.From); err != nil {
			return nil, fmt.Errorf("failover from %q: the region %w", Clip(f.From), err)
		}
		if _, twice := rules[f.From]; twice {
			return nil, fmt.Errorf("failover from %s is given twice; put its regions into one list", f.From)
		}
		if len(f.To) == 0 || len(f.To) > maxRules {
			return nil, fmt.Errorf("failover from %s names %d regions; name 1 to %d", f.From, len(f.To), maxRules)
		}
		for i, to := range f.To {
			if err := checkSegment(to); err != nil {
				return nil, fmt.Errorf("failover from %s to %q: the region %w", f.From, Clip(to), err)
			}
			if to == f.From {
				return nil, fmt.Errorf(
					"failover from %s leads to itself; a caller's own region always comes first",
					f.From,
				)
			}
			if slices.Contains(f.To[:i], to) {
				return nil, fmt.Errorf("failover from %s names %s twice", f.From, to)
			}
		}
		rules[f.From] = slices.Clone(f.To)
	}
	return rules, nil
}

func distributionRules(settings []DistributionSetting) ([]distribution, error) {
	var rules []distribution
	for _, d := range settings {
		from, err := ParsePattern(d.From)
		if err != nil {
			return nil, fmt.Errorf("distribution from %q: %w", Clip(d.From), err)
		}
		if slices.ContainsFunc(rules, func(r distribution) bool { return r.from == from }) {
			return nil, fmt.Errorf(
				"distribution from %s is given twice; the second would never count",
				patternText(from),
			)
		}
		if len(d.To) > maxRules {
			return nil, fmt.Errorf(
				"distribution from %s names %d places; %d are allowed",
				patternText(from),
				len(d.To),
				maxRules,
			)
		}
		rule := distribution{from: from}
		sum := 0
		for _, text := range slices.Sorted(maps.Keys(d.To)) {
			place, err := ParsePattern(text)
			if err != nil {
				return nil, fmt.Errorf("distribution from %s to %q: %w", patternText(from), Clip(text), err)
			}
			percent := d.To[text]
			if percent < 1 || percent > 100 {
				return nil, fmt.Errorf(
					"distribution from %s gives %s %d percent; give it 1 to 100, or leave it out",
					patternText(from),
					patternText(place),
					percent,
				)
			}
			for _, other := range rule.targets {
				if place.Within(other.place) || other.place.Within(place) {
					return nil, fmt.Errorf(
						"distribution from %s: %s and %s overlap, so that it is open which percentage counts",
						patternText(from),
						patternText(other.place),
						patternText(place),
					)
				}
			}
			sum += percent
			rule.targets = append(rule.targets, target{place: place, percent: uint64(percent)})
		}
		if sum != 100 {
			return nil, fmt.Errorf(
				"distribution from %s: the percentages add up to %d; they must add up to 100",
				patternText(from),
				sum,
			)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// distributionFor returns the rule for callers in a locality, if there is one.
func (p *Policy) distributionFor(caller Locality) (distribution, bool) {
	for _, d := range p.distribution {
		if caller.Within(d.from) {
			return d, true
		}
	}
	return distribution{}, false
}

// String says the policy in one line, for the log.
func (p *Policy) String() string {
	var b strings.Builder
	fmt.Fprintf(
		&b,
		"overprovisioning %d, panic threshold %d, stale %s, %d failover and %d distribution rules",
		p.factor,
		p.panicBelow,
		p.stale,
		len(p.failover),
		len(p.distribution),
	)
	return b.String()
}
