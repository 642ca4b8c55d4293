package routing

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

// ruleTable holds all rules, by service or [plan.AllServices].
var ruleTable = raftstore.NewTable[*statev1.RoutingRule]("routing_rules")

const (
	// maxStoredRules bounds all rules, so that one transaction can read them and one response can list them.
	maxStoredRules = 1000
	maxRulesAtOnce = 100
)

// ruleServer serves the calls about rules.
type ruleServer struct {
	store *raftstore.Store
	rules *ruleBook
	now   func() time.Time
}

// PutRules creates or replaces rules, all of them or none. Each is checked together with the rules and the
// configuration below it.
func (s *ruleServer) PutRules(ctx context.Context, r *ententev1.PutRulesRequest) (*ententev1.PutRulesResponse, error) {
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
			return nil, invalid(
				fmt.Errorf("%w: there are two for %s; merge them into one", plan.ErrRule, m.GetService()),
			)
		}
		rows[m.GetService()] = row
	}
	names := slices.Sorted(maps.Keys(rows))
	warnings, err := ruleWarnings(s.store.View(), names, rows)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	revision, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, name := range names {
			row := rows[name]
			row.UpdateTime = timestamppb.New(s.now())
			if err := ruleTable.Put(tx, name, row); err != nil {
				return err
			}
		}
		return s.check(tx, names)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	response := &ententev1.PutRulesResponse{Revision: uint64(revision), Warnings: warnings}
	for _, name := range names {
		response.Rules = append(response.Rules, plan.RuleProto(name, rows[name], uint64(revision)))
	}
	return response, nil
}

// check returns an error unless every service that the named rules affect has a policy: valid rules can be too many
// together. Other rules are not checked, so that a rule which a new configuration has made invalid does not prevent its
// repair.
func (s *ruleServer) check(tx *raftstore.Tx, names []string) error {
	list, err := ruleTable.List(tx, "")
	if err != nil {
		return err
	}
	if len(list) > maxStoredRules {
		return status.Errorf(codes.ResourceExhausted,
			"there would be %d rules, and %d are allowed; delete some", len(list), maxStoredRules)
	}
	for _, row := range list {
		if !slices.Contains(names, row.Key) && !slices.Contains(names, plan.AllServices) {
			continue
		}
		if _, err := s.rules.build(tx, row.Key); err != nil {
			return status.Errorf(codes.FailedPrecondition,
				"the rule for %s together with the rule for all services and the configuration: %v", row.Key, err)
		}
	}
	return nil
}

// ruleWarnings lists what of rules never applies, and the regions in which nothing is registered, which may be typing
// errors.
func ruleWarnings(r raftstore.Reader, names []string, rows map[string]*statev1.RoutingRule) ([]string, error) {
	list, err := registry.List(r)
	if err != nil {
		return nil, err
	}
	regions := make(map[string]bool)
	for _, i := range list {
		regions[i.Locality.Region] = true
	}
	var warnings []string
	for _, name := range names {
		warnings = append(warnings, plan.UnreachableDistributions(name, rows[name].GetDistribution())...)
		for _, region := range slices.Sorted(maps.Keys(plan.RuleRegions(rows[name]))) {
			if !regions[region] {
				warnings = append(warnings, fmt.Sprintf(
					"the rule for %s names the region %s, in which no instance of any service is registered",
					name, region,
				))
			}
		}
	}
	return warnings, nil
}

// ListRules returns all rules, the rule for all services first.
func (s *ruleServer) ListRules(
	ctx context.Context, r *ententev1.ListRulesRequest,
) (*ententev1.ListRulesResponse, error) {
	view, err := registry.Read(ctx, s.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	response := &ententev1.ListRulesResponse{Revision: uint64(view.Revision())}
	for row, err := range ruleTable.All(view, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		response.Rules = append(response.Rules, plan.RuleProto(row.Key, row.Value, uint64(row.Revision)))
	}
	return response, nil
}

// GetRule returns one rule.
func (s *ruleServer) GetRule(ctx context.Context, r *ententev1.GetRuleRequest) (*ententev1.RoutingRule, error) {
	view, err := registry.Read(ctx, s.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	row, found, err := ruleTable.Get(view, r.GetService())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !found {
		return nil, noRule(r.GetService())
	}
	return plan.RuleProto(row.Key, row.Value, uint64(row.Revision)), nil
}

func noRule(service string) error {
	return status.Errorf(
		codes.NotFound,
		"there is no rule for %q; 'entente rule list' lists all rules",
		plan.Clip(service),
	)
}

// DeleteRule removes a rule. The remaining rules are not checked, because removing a rule only removes conditions.
func (s *ruleServer) DeleteRule(
	ctx context.Context, r *ententev1.DeleteRuleRequest,
) (*ententev1.DeleteRuleResponse, error) {
	revision, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
		_, found, err := ruleTable.Get(tx, r.GetService())
		if err != nil {
			return err
		}
		if !found {
			return noRule(r.GetService())
		}
		return ruleTable.Delete(tx, r.GetService())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.DeleteRuleResponse{Revision: uint64(revision)}, nil
}
