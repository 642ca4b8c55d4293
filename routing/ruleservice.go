package routing

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

const (
	// maxStoredRules bounds all rules, so that one transaction can read them and one response can list them.
	maxStoredRules = 1000
	maxRulesAtOnce = 100
)

// PutRules creates or replaces rules, all of them or none. What each says is checked together with the rules and the
// configuration that it is laid over.
func (s *Server) PutRules(ctx context.Context, r *ententev1.PutRulesRequest) (*ententev1.PutRulesResponse, error) {
	if n := len(r.GetRules()); n == 0 || n > maxRulesAtOnce {
		return nil, status.Errorf(codes.InvalidArgument, "the request has %d rules; send 1 to %d", n, maxRulesAtOnce)
	}
	rows := make(map[string]*statev1.RoutingRule)
	for _, m := range r.GetRules() {
		row, err := plan.ParseRule(m)
		if err != nil {
			return nil, invalid(err)
		}
		if rows[m.GetService()] != nil {
			return nil, invalid(fmt.Errorf("%w: there are two for %s; put what they say into one", plan.ErrRule, m.GetService()))
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
		answer.Rules = append(answer.Rules, plan.RuleProto(name, rows[name], uint64(revision)))
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
		if !slices.Contains(names, row.Key) && !slices.Contains(names, plan.AllServices) {
			continue
		}
		if _, err := m.rules.make(tx, row.Key); err != nil {
			return status.Errorf(codes.FailedPrecondition, "the rule for %s together with the rule for all services and the configuration: %v", row.Key, err)
		}
	}
	return nil
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
		out = append(out, plan.UnreachableDistributions(name, rows[name].GetDistribution())...)
		unknown := make(map[string]bool)
		for _, f := range rows[name].GetFailover() {
			for _, region := range append([]string{f.GetFrom()}, f.GetTo()...) {
				unknown[region] = !regions[region]
			}
		}
		for _, d := range rows[name].GetDistribution() {
			for _, text := range append(slices.Collect(maps.Keys(d.GetTo())), d.GetFrom()) {
				// It was parsed before.
				if place, err := plan.ParsePattern(text); err == nil && place.Region != "" {
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
		answer.Rules = append(answer.Rules, plan.RuleProto(row.Key, row.Value, uint64(row.Revision)))
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
	return plan.RuleProto(row.Key, row.Value, uint64(row.Revision)), nil
}

func noRule(service string) error {
	return status.Errorf(codes.NotFound, "there is no rule for %q; 'entente rule list' names all", plan.Clip(service))
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

// Rules is the table of all rules, by service or AllServices.
var Rules = raftstore.NewTable[*statev1.RoutingRule]("routing_rules")
