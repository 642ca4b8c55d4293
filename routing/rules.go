package routing

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
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
		return nil, invalid(apierror.InField("rules",
			fmt.Errorf("the request has %d rules; send 1 to %d", n, maxRulesAtOnce)))
	}
	rows, etags := make(map[string]*statev1.RoutingRule), make(map[string]string)
	for i, m := range r.GetRules() {
		row, err := plan.ParseRule(m)
		if err != nil {
			return nil, invalid(apierror.InField(fmt.Sprintf("rules[%d]", i), err))
		}
		if rows[m.GetService()] != nil {
			return nil, invalid(apierror.InField(fmt.Sprintf("rules[%d].service", i),
				fmt.Errorf("%w: there are two for %s; merge them into one", plan.ErrRule, m.GetService())))
		}
		rows[m.GetService()], etags[m.GetService()] = row, m.GetEtag()
	}
	names := slices.Sorted(maps.Keys(rows))
	if earlier := repeat.Earlier(ctx); earlier != nil {
		return s.putEarlier(names, earlier)
	}
	warnings, err := ruleWarnings(s.store.View(), names, rows)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	present := make(map[string]raftstore.Row[*statev1.RoutingRule])
	revision, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, name := range names {
			if present[name], err = s.put(tx, name, rows[name], etags[name]); err != nil {
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
		at := uint64(cmp.Or(present[name].Revision, revision))
		response.Rules = append(response.Rules, plan.RuleProto(name, present[name].Value, at))
	}
	return response, nil
}

// putEarlier returns the rules that an earlier call with the same request id has put, as they are now.
func (s *ruleServer) putEarlier(names []string, earlier *repeat.Made) (*ententev1.PutRulesResponse, error) {
	view := s.store.View()
	response := &ententev1.PutRulesResponse{Revision: uint64(earlier.Revision)}
	for _, name := range names {
		row, found, err := ruleTable.Get(view, name)
		switch {
		case err != nil:
			return nil, raftstore.StatusError(err)
		case !found:
			return nil, status.Errorf(codes.NotFound, "the rule for %s was deleted", name)
		}
		response.Rules = append(response.Rules, plan.RuleProto(name, row.Value, uint64(row.Revision)))
	}
	return response, nil
}

// put creates or replaces a rule, unless it is equal already, and returns its row. The revision of a written one is 0.
func (s *ruleServer) put(
	tx *raftstore.Tx, name string, wanted *statev1.RoutingRule, requested string,
) (raftstore.Row[*statev1.RoutingRule], error) {
	stored, found, err := ruleTable.Get(tx, name)
	if err != nil {
		return stored, err
	}
	if err := checkEtag(requested, name, stored.Value, found); err != nil {
		return stored, err
	}
	row := proto.CloneOf(wanted)
	row.UpdateTime, row.Generation = stored.Value.GetUpdateTime(), stored.Value.GetGeneration()
	if found && proto.Equal(row, stored.Value) {
		return stored, nil
	}
	row.UpdateTime, row.Generation = timestamppb.New(s.now()), raftstore.NextGeneration(tx, row.GetGeneration())
	return raftstore.Row[*statev1.RoutingRule]{Key: name, Value: row}, ruleTable.Put(tx, name, row)
}

// checkEtag returns an error if a rule has another etag than a request.
func checkEtag(requested, name string, stored *statev1.RoutingRule, found bool) error {
	title := "the rule for " + plan.Clip(name)
	if !found {
		return etag.Check(requested, title)
	}
	return etag.Check(requested, title, etag.Of(stored.GetGeneration()))
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
	remove := func(tx *raftstore.Tx) error {
		stored, found, err := ruleTable.Get(tx, r.GetService())
		if err != nil {
			return err
		}
		if !found {
			return noRule(r.GetService())
		}
		if err := checkEtag(r.GetEtag(), r.GetService(), stored.Value, found); err != nil {
			return err
		}
		return ruleTable.Delete(tx, r.GetService())
	}
	if r.GetDryRun() {
		if err := raftstore.Try(ctx, s.store, remove); err != nil {
			return nil, raftstore.StatusError(err)
		}
		return &ententev1.DeleteRuleResponse{
			Revision: uint64(s.store.View().Revision()), Effects: []*ententev1.Effect{{
				Kind: "rule", Subject: r.GetService(),
				Detail: "its settings end: hints take them from the rule for all, else from the configuration",
			}},
		}, nil
	}
	revision, err := s.store.Update(ctx, remove)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.DeleteRuleResponse{Revision: uint64(revision)}, nil
}
