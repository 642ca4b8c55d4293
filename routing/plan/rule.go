package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/etag"
)

// AllServices is the service of the rule that applies to all services.
const AllServices = "*"

const (
	// maxRuleBytes keeps all rules together within one response. A rule of 256 regions with five targets each fits.
	maxRuleBytes = 32 << 10
)

// ErrRule is returned for a rule that is not valid.
var ErrRule = errors.New("not a rule")

// ParseRule checks a rule and returns what is stored of it.
func ParseRule(m *ententev1.RoutingRule) (*statev1.RoutingRule, error) {
	if m.GetService() != AllServices {
		if err := CheckServiceName(m.GetService()); err != nil {
			return nil, apierror.InField("service", fmt.Errorf(
				"%w: %w; a rule is for a service, or for %s, which stands for all",
				ErrRule, err, AllServices,
			))
		}
	}
	// Absent and 0 differ: a setting of 0 is rejected and does not stand for the default.
	for _, given := range []struct {
		name    string
		percent *uint32
	}{{"overprovisioning_factor", m.OverprovisioningFactor}, {"failover_threshold", m.FailoverThreshold}} {
		if given.percent != nil && (*given.percent == 0 || *given.percent > maxOverprovisioning) {
			return nil, apierror.InField(given.name, fmt.Errorf(
				"%w: for %s: %s is %d; leave it out, or write a percentage",
				ErrRule, m.GetService(), given.name, *given.percent,
			))
		}
	}
	if m.PanicThreshold != nil && m.GetPanicThreshold() > 100 {
		return nil, apierror.InField("panic_threshold", fmt.Errorf(
			"%w: for %s: panic_threshold is %d; it is a percentage from 0 (off) to 100",
			ErrRule, m.GetService(), m.GetPanicThreshold(),
		))
	}
	row := &statev1.RoutingRule{
		OverprovisioningFactor: m.OverprovisioningFactor, FailoverThreshold: m.FailoverThreshold,
		PanicThreshold: m.PanicThreshold, Stale: m.GetStale(),
	}
	for _, f := range m.GetFailover() {
		row.Failover = append(row.Failover, &statev1.FailoverRule{From: f.GetFrom(), To: f.GetTo()})
	}
	for i, d := range m.GetDistribution() {
		for _, place := range slices.Sorted(maps.Keys(d.GetTo())) {
			if percent := d.GetTo()[place]; percent > 100 {
				return nil, apierror.InField(fmt.Sprintf("distribution[%d].to", i), fmt.Errorf(
					"%w: for %s: distribution from %s gives %s %d percent; write 1 to 100, or leave it out",
					ErrRule, m.GetService(), Clip(d.GetFrom()), Clip(place), percent,
				))
			}
		}
		row.Distribution = append(row.Distribution, &statev1.DistributionRule{From: d.GetFrom(), To: d.GetTo()})
	}
	if row.OverprovisioningFactor == nil && row.FailoverThreshold == nil && row.PanicThreshold == nil &&
		row.Stale == "" &&
		len(row.Failover)+len(row.Distribution) == 0 {
		return nil, fmt.Errorf(
			"%w: for %s: it is empty; 'entente rule delete' removes a rule",
			ErrRule, m.GetService(),
		)
	}
	if size := proto.Size(row); size > maxRuleBytes {
		return nil, fmt.Errorf(
			"%w: for %s: it has %d bytes, and %d are allowed; name fewer regions and places",
			ErrRule, m.GetService(), size, maxRuleBytes,
		)
	}
	if _, err := NewPolicy(SettingsFromRow(row)); err != nil {
		return nil, fmt.Errorf("%w: for %s: %w", ErrRule, m.GetService(), err)
	}
	return row, nil
}

// SettingsFromRow returns the settings of a stored rule.
func SettingsFromRow(r *statev1.RoutingRule) Settings {
	s := Settings{
		OverprovisioningFactor: int(
			r.GetOverprovisioningFactor(),
		), FailoverThreshold: int(r.GetFailoverThreshold()), Stale: StaleMode(r.GetStale()),
	}
	if r.PanicThreshold != nil {
		threshold := int(r.GetPanicThreshold())
		s.PanicThreshold = &threshold
	}
	for _, f := range r.GetFailover() {
		s.Failover = append(s.Failover, FailoverSetting{From: f.GetFrom(), To: f.GetTo()})
	}
	for _, d := range r.GetDistribution() {
		to := make(map[string]int, len(d.GetTo()))
		for place, percent := range d.GetTo() {
			to[place] = int(percent)
		}
		s.Distribution = append(s.Distribution, DistributionSetting{From: d.GetFrom(), To: to})
	}
	return s
}

// RuleProto returns the API message of a stored rule.
func RuleProto(service string, v *statev1.RoutingRule, revision uint64) *ententev1.RoutingRule {
	m := &ententev1.RoutingRule{
		Service: service, OverprovisioningFactor: v.OverprovisioningFactor, FailoverThreshold: v.FailoverThreshold,
		PanicThreshold: v.PanicThreshold, Stale: v.GetStale(), UpdateTime: v.GetUpdateTime(), Revision: revision,
		Etag: etag.Of(v.GetGeneration()),
	}
	for _, f := range v.GetFailover() {
		m.Failover = append(m.Failover, &ententev1.FailoverRule{From: f.GetFrom(), To: f.GetTo()})
	}
	for _, d := range v.GetDistribution() {
		m.Distribution = append(m.Distribution, &ententev1.DistributionRule{From: d.GetFrom(), To: d.GetTo()})
	}
	return m
}

// UnreachableDistributions describes the distributions of a rule that never apply, because one before them is for all
// of the same callers.
func UnreachableDistributions(service string, list []*statev1.DistributionRule) (out []string) {
	var before []Locality
	for _, d := range list {
		from, err := parsePattern(d.GetFrom())
		if err != nil {
			continue // the rule has been parsed before
		}
		if i := slices.IndexFunc(before, from.Within); i >= 0 {
			out = append(
				out,
				fmt.Sprintf(
					"the rule for %s has a distribution from %s that never applies: the one from %s precedes it",
					service, patternText(from), patternText(before[i]),
				),
			)
		}
		before = append(before, from)
	}
	return out
}

// Overlay returns the settings with a rule on top of them. A failover or a distribution of the rule replaces those of
// the same region or place; the others remain, behind those of the rule.
func (s Settings) Overlay(rule Settings) Settings {
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
	replaced := make(map[Locality]bool, len(rule.Distribution)) // a place can be written in two ways
	for _, own := range rule.Distribution {
		if place, err := parsePattern(own.From); err == nil {
			replaced[place] = true
		}
	}
	for _, d := range s.Distribution {
		if place, err := parsePattern(d.From); err != nil || !replaced[place] {
			distribution = append(distribution, d)
		}
	}
	s.Failover, s.Distribution = failover, distribution
	return s
}

// RuleRegions returns the regions that a rule names.
func RuleRegions(r *statev1.RoutingRule) map[string]bool {
	regions := make(map[string]bool)
	for _, f := range r.GetFailover() {
		regions[f.GetFrom()] = true
		for _, to := range f.GetTo() {
			regions[to] = true
		}
	}
	for _, d := range r.GetDistribution() {
		for _, text := range append(slices.Collect(maps.Keys(d.GetTo())), d.GetFrom()) {
			// The rule has been parsed before.
			if place, err := parsePattern(text); err == nil && place.Region != "" {
				regions[place.Region] = true
			}
		}
	}
	return regions
}
