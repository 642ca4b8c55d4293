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
	// Below 100 a fully healthy priority would spill. 10000 is a failover threshold of one percent.
	minOverprovisioning = 100
	maxOverprovisioning = 10000
	// maxRules bounds the rules that each caller is compared with for each hint.
	maxRules = 256
)

// StaleMode is what happens to an instance whose bundle has become stale.
type StaleMode string

const (
	// StaleDemote moves the instance behind every instance whose trust is fresh.
	StaleDemote StaleMode = "demote"
	// StaleKeep leaves the instance where it is.
	StaleKeep StaleMode = "keep"
	// StaleDrop leaves the instance out.
	StaleDrop StaleMode = "drop"
)

// Settings is a policy as it is configured. The zero value stands for the defaults.
type Settings struct {
	// OverprovisioningFactor, in percent, is the factor by which a priority counts as stronger than it has to be; 0
	// stands for 140. FailoverThreshold, in percent of healthy instances, is an alternative to it: the factor is 10000
	// divided by it. At most one of the two is set.
	OverprovisioningFactor int
	FailoverThreshold      int
	// PanicThreshold is the percentage of available instances below which a priority is in panic. 0 disables panic, and
	// nil stands for 50.
	PanicThreshold *int
	// Stale is what happens to instances whose trust is stale. If empty, they are demoted.
	Stale StaleMode
	// Failover orders the foreign regions for callers in a region.
	Failover []FailoverSetting
	// Distribution splits load by fixed percentages. The first element whose From contains the caller applies.
	Distribution []DistributionSetting
}

// FailoverSetting sends callers of one region to the given regions, in that order, before any other.
type FailoverSetting struct {
	From string
	To   []string
}

// DistributionSetting splits the load of the callers in a place by percentages that add up to 100. A place is a
// locality, which stands for everything in it, or *.
type DistributionSetting struct {
	From string
	To   map[string]int
}

// Policy decides how instances become a plan. It is immutable; use NewPolicy or DefaultPolicy.
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

// DefaultPolicy returns the policy of a cluster that configures none.
func DefaultPolicy() *Policy {
	return &Policy{factor: DefaultOverprovisioning, panicBelow: DefaultPanicThreshold, stale: StaleDemote}
}

// Overprovisioning returns the factor of the policy, in percent. xDS clients use the same factor.
func (p *Policy) Overprovisioning() uint32 { return uint32(p.factor) }

// PanicThreshold returns the percentage below which a priority is in panic, or 0 if panic is disabled.
func (p *Policy) PanicThreshold() uint32 { return uint32(p.panicBelow) }

// NewPolicy checks settings and returns their policy. The error names the setting and the remedy.
func NewPolicy(s Settings) (*Policy, error) {
	p := DefaultPolicy()
	switch {
	case s.OverprovisioningFactor != 0 && s.FailoverThreshold != 0:
		return nil, fmt.Errorf(
			"overprovisioning_factor %d and failover_threshold %d are alternatives; set one of them",
			s.OverprovisioningFactor, s.FailoverThreshold,
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
				s.OverprovisioningFactor, minOverprovisioning, maxOverprovisioning,
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
			len(s.Failover), len(s.Distribution), maxRules,
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
			return nil, fmt.Errorf("failover from %s occurs twice; merge its regions into one list", f.From)
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
					"failover from %s names itself; the region of the caller always comes first",
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
		from, err := parsePattern(d.From)
		if err != nil {
			return nil, fmt.Errorf("distribution from %q: %w", Clip(d.From), err)
		}
		if slices.ContainsFunc(rules, func(r distribution) bool { return r.from == from }) {
			return nil, fmt.Errorf(
				"distribution from %s occurs twice; the second would never apply",
				patternText(from),
			)
		}
		if len(d.To) > maxRules {
			return nil, fmt.Errorf(
				"distribution from %s names %d places; %d are allowed",
				patternText(from), len(d.To), maxRules,
			)
		}
		rule := distribution{from: from}
		sum := 0
		for _, text := range slices.Sorted(maps.Keys(d.To)) {
			place, err := parsePattern(text)
			if err != nil {
				return nil, fmt.Errorf("distribution from %s to %q: %w", patternText(from), Clip(text), err)
			}
			percent := d.To[text]
			if percent < 1 || percent > 100 {
				return nil, fmt.Errorf(
					"distribution from %s gives %s %d percent; write 1 to 100, or leave it out",
					patternText(from), patternText(place), percent,
				)
			}
			for _, other := range rule.targets {
				if place.Within(other.place) || other.place.Within(place) {
					return nil, fmt.Errorf(
						"distribution from %s: %s and %s overlap, so the percentage is ambiguous",
						patternText(from), patternText(other.place), patternText(place),
					)
				}
			}
			sum += percent
			rule.targets = append(rule.targets, target{place: place, percent: uint64(percent)})
		}
		if sum != 100 {
			return nil, fmt.Errorf(
				"distribution from %s: the percentages add up to %d; they must add up to 100",
				patternText(from), sum,
			)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// distributionFor returns the distribution for callers in a locality, and whether there is one.
func (p *Policy) distributionFor(caller Locality) (distribution, bool) {
	for _, d := range p.distribution {
		if caller.Within(d.from) {
			return d, true
		}
	}
	return distribution{}, false
}

// String describes the policy in one line, for the log.
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
