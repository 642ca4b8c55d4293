package routing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// AllServices is the service of the rule that holds for all that have no say of their own.
const AllServices = "*"

const (
	// maxStoredRules keeps all rules together small enough for one transaction to read them, and with maxRuleBytes for one answer
	// to name them all. A rule of 256 regions with five to go to each fits.
	maxStoredRules = 1000
	maxRulesAtOnce = 100
	maxRuleBytes   = 32 << 10
)

// ErrRule is returned for a rule that cannot be taken as it is.
var ErrRule = errors.New("not a rule")

// Rules is the table of all rules, by service or AllServices.
var Rules = raftstore.NewTable[*statev1.RoutingRule]("routing_rules")

// parseRule checks a rule whole.
func parseRule(m *ententev1.RoutingRule) (*statev1.RoutingRule, error) {
	if m.GetService() != AllServices {
		if err := CheckServiceName(m.GetService()); err != nil {
			return nil, fmt.Errorf("%w: %w; a rule is for a service, or for %s, which is all", ErrRule, err, AllServices)
		}
	}
	// Absent and 0 are not the same: what was set to 0 is refused, not taken for the default.
	for _, given := range []struct {
		name    string
		percent *uint32
	}{{"overprovisioning_factor", m.OverprovisioningFactor}, {"failover_threshold", m.FailoverThreshold}} {
		if given.percent != nil && (*given.percent == 0 || *given.percent > maxOverprovisioning) {
			return nil, fmt.Errorf("%w: for %s: %s is %d; leave it out, or give a percentage", ErrRule, m.GetService(), given.name, *given.percent)
		}
	}
	if m.PanicThreshold != nil && m.GetPanicThreshold() > 100 {
		return nil, fmt.Errorf("%w: for %s: panic_threshold is %d; it is a percentage from 0 (off) to 100", ErrRule, m.GetService(), m.GetPanicThreshold())
	}
	row := &statev1.RoutingRule{
		OverprovisioningFactor: m.OverprovisioningFactor, FailoverThreshold: m.FailoverThreshold, PanicThreshold: m.PanicThreshold, Stale: m.GetStale(),
	}
	for _, f := range m.GetFailover() {
		row.Failover = append(row.Failover, &statev1.FailoverRule{From: f.GetFrom(), To: f.GetTo()})
	}
	for _, d := range m.GetDistribution() {
		for _, place := range slices.Sorted(maps.Keys(d.GetTo())) {
			if percent := d.GetTo()[place]; percent > 100 {
				return nil, fmt.Errorf("%w: for %s: distribution from %s gives %s %d percent; give it 1 to 100, or leave it out", ErrRule, m.GetService(), clip(d.GetFrom()), clip(place), percent)
			}
		}
		row.Distribution = append(row.Distribution, &statev1.DistributionRule{From: d.GetFrom(), To: d.GetTo()})
	}
	if row.OverprovisioningFactor == nil && row.FailoverThreshold == nil && row.PanicThreshold == nil && row.Stale == "" && len(row.Failover)+len(row.Distribution) == 0 {
		return nil, fmt.Errorf("%w: for %s: it says nothing; 'entente rule delete' removes one", ErrRule, m.GetService())
	}
	if size := proto.Size(row); size > maxRuleBytes {
		return nil, fmt.Errorf("%w: for %s: it has %d bytes, and %d are allowed; name fewer regions and places", ErrRule, m.GetService(), size, maxRuleBytes)
	}
	if _, err := NewPolicy(settingsFromRow(row)); err != nil {
		return nil, fmt.Errorf("%w: for %s: %w", ErrRule, m.GetService(), err)
	}
	return row, nil
}

func settingsFromRow(r *statev1.RoutingRule) Settings {
	s := Settings{
		OverprovisioningFactor: int(r.GetOverprovisioningFactor()), FailoverThreshold: int(r.GetFailoverThreshold()), Stale: StaleMode(r.GetStale()),
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

func ruleProto(row raftstore.Row[*statev1.RoutingRule]) *ententev1.RoutingRule {
	v := row.Value
	m := &ententev1.RoutingRule{
		Service: row.Key, OverprovisioningFactor: v.OverprovisioningFactor, FailoverThreshold: v.FailoverThreshold,
		PanicThreshold: v.PanicThreshold, Stale: v.GetStale(), UpdateTime: v.GetUpdateTime(), Revision: uint64(row.Revision),
	}
	for _, f := range v.GetFailover() {
		m.Failover = append(m.Failover, &ententev1.FailoverRule{From: f.GetFrom(), To: f.GetTo()})
	}
	for _, d := range v.GetDistribution() {
		m.Distribution = append(m.Distribution, &ententev1.DistributionRule{From: d.GetFrom(), To: d.GetTo()})
	}
	return m
}

// PutRules creates or replaces rules, all of them or none. What each says is checked together with the rules and the
// configuration that it is laid over.
func (s *Server) PutRules(ctx context.Context, r *ententev1.PutRulesRequest) (*ententev1.PutRulesResponse, error) {
	if n := len(r.GetRules()); n == 0 || n > maxRulesAtOnce {
		return nil, status.Errorf(codes.InvalidArgument, "the request has %d rules; send 1 to %d", n, maxRulesAtOnce)
	}
	rows := make(map[string]*statev1.RoutingRule)
	for _, m := range r.GetRules() {
		row, err := parseRule(m)
		if err != nil {
			return nil, invalid(err)
		}
		if rows[m.GetService()] != nil {
			return nil, invalid(fmt.Errorf("%w: there are two for %s; put what they say into one", ErrRule, m.GetService()))
		}
		rows[m.GetService()] = row
	}
	names := slices.Sorted(maps.Keys(rows))
	warnings, err := s.m.warnings(s.m.store.View(), names, rows)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, name := range names {
			row := rows[name]
			row.UpdateTime = timestamppb.New(s.m.now())
			if err := Rules.Put(tx, name, row); err != nil {
				return err
			}
		}
		return s.m.checkRules(tx, names)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.PutRulesResponse{Revision: uint64(revision), Warnings: warnings}
	for _, name := range names {
		answer.Rules = append(answer.Rules, ruleProto(raftstore.Row[*statev1.RoutingRule]{Key: name, Value: rows[name], Revision: revision}))
	}
	return answer, nil
}

// checkRules makes sure that every service that the named rules concern has a policy: rules that are right each can be too many
// together. Those of others are left alone, so that one which a new configuration has made wrong does not stand in the way of
// what mends it.
func (m *Manager) checkRules(tx *raftstore.Tx, names []string) error {
	list, err := Rules.List(tx, "")
	if err != nil {
		return err
	}
	if len(list) > maxStoredRules {
		return status.Errorf(codes.ResourceExhausted, "there would be %d rules, and %d are allowed; delete some", len(list), maxStoredRules)
	}
	for _, row := range list {
		if !slices.Contains(names, row.Key) && !slices.Contains(names, AllServices) {
			continue
		}
		if _, err := m.rules.make(tx, row.Key); err != nil {
			return status.Errorf(codes.FailedPrecondition, "the rule for %s together with the rule for all services and the configuration: %v", row.Key, err)
		}
	}
	return nil
}

// hidden names the distributions of a rule that never count, since one before them is for all of the same callers.
func hidden(service string, list []*statev1.DistributionRule) (out []string) {
	var before []Locality
	for _, d := range list {
		from, err := ParsePattern(d.GetFrom())
		if err != nil {
			continue // it was parsed before
		}
		if i := slices.IndexFunc(before, from.within); i >= 0 {
			out = append(out, fmt.Sprintf("the rule for %s has a distribution from %s that never counts: the one from %s stands before it",
				service, patternText(from), patternText(before[i])))
		}
		before = append(before, from)
	}
	return out
}

// warnings names what of rules never counts, and the regions in which nothing is registered: a slip of the pen, or a region that is
// still to come.
func (m *Manager) warnings(r raftstore.Reader, names []string, rows map[string]*statev1.RoutingRule) ([]string, error) {
	list, err := decode(r, "")
	if err != nil {
		return nil, err
	}
	regions := make(map[string]bool)
	for _, i := range list {
		regions[i.Locality.Region] = true
	}
	var out []string
	for _, name := range names {
		out = append(out, hidden(name, rows[name].GetDistribution())...)
		unknown := make(map[string]bool)
		for _, f := range rows[name].GetFailover() {
			for _, region := range append([]string{f.GetFrom()}, f.GetTo()...) {
				unknown[region] = !regions[region]
			}
		}
		for _, d := range rows[name].GetDistribution() {
			for _, text := range append(slices.Collect(maps.Keys(d.GetTo())), d.GetFrom()) {
				// It was parsed before.
				if place, err := ParsePattern(text); err == nil && place.Region != "" {
					unknown[place.Region] = !regions[place.Region]
				}
			}
		}
		for _, region := range slices.Sorted(maps.Keys(unknown)) {
			if unknown[region] {
				out = append(out, fmt.Sprintf("the rule for %s names the region %s, in which no instance of any service is registered", name, region))
			}
		}
	}
	return out, nil
}

// ListRules returns all rules, that for all services first.
func (s *Server) ListRules(ctx context.Context, r *ententev1.ListRulesRequest) (*ententev1.ListRulesResponse, error) {
	view, err := s.read(ctx, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	answer := &ententev1.ListRulesResponse{Revision: uint64(view.Revision())}
	for row, err := range Rules.All(view, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		answer.Rules = append(answer.Rules, ruleProto(row))
	}
	return answer, nil
}

// GetRule returns one rule.
func (s *Server) GetRule(ctx context.Context, r *ententev1.GetRuleRequest) (*ententev1.RoutingRule, error) {
	view, err := s.read(ctx, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	row, found, err := Rules.Get(view, r.GetService())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !found {
		return nil, noRule(r.GetService())
	}
	return ruleProto(row), nil
}

func noRule(service string) error {
	return status.Errorf(codes.NotFound, "there is no rule for %q; 'entente rule list' names all", clip(service))
}

// DeleteRule removes a rule. What is left over never says more than it did, so that there is nothing to check.
func (s *Server) DeleteRule(ctx context.Context, r *ententev1.DeleteRuleRequest) (*ententev1.DeleteRuleResponse, error) {
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		_, found, err := Rules.Get(tx, r.GetService())
		if err != nil {
			return err
		}
		if !found {
			return noRule(r.GetService())
		}
		return Rules.Delete(tx, r.GetService())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.DeleteRuleResponse{Revision: uint64(revision)}, nil
}
