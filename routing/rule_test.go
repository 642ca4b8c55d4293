package routing

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/routingtest"
)

// TestRulesChangeHints: a rule for a service overlays the rule for all services, which overlays the configuration.
// Hints follow them.
func TestRulesChangeHints(t *testing.T) {
	r, ctx := newFixture(t), routingtest.Admin(t)
	for address, zone := range map[string]string{"10.0.0.1:443": "a", "10.0.0.2:443": "b"} {
		i := routingtest.Registration()
		i.Address, i.Locality = address, &ententev1.Locality{Region: "eu", Zone: zone}
		_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(t, err)
	}
	priorities := func() int {
		h, err := r.GetHint(
			ctx,
			&ententev1.GetHintRequest{Service: "shop", Locality: &ententev1.Locality{Region: "eu", Zone: "a"}},
		)
		require.NoError(t, err)
		return len(h.GetPriorities())
	}
	require.Equal(t, 2, priorities())
	half := map[string]uint32{"eu/a": 50, "eu/b": 50}
	put, err := r.PutRules(ctx, &ententev1.PutRulesRequest{Rules: []*ententev1.RoutingRule{
		{
			Service:        "*",
			PanicThreshold: proto.Uint32(0),
			Failover:       []*ententev1.FailoverRule{{From: "eu", To: []string{"mars"}}},
		},
		{Service: "shop", Distribution: []*ententev1.DistributionRule{{From: "eu", To: half}}},
	}})
	require.NoError(t, err)
	require.Equal(
		t,
		[]string{"the rule for * names the region mars, in which no instance of any service is registered"},
		put.GetWarnings(),
	)
	require.Equal(t, 1, priorities())
	p, err := r.Planner.rules.policy(r.store.View(), "shop")
	require.NoError(t, err)
	require.Zero(t, p.PanicThreshold(), "the rule for all does not reach a service with a rule")
	own, err := r.GetRule(ctx, &ententev1.GetRuleRequest{Service: "shop"})
	require.NoError(t, err)
	require.Equal(t, half, own.GetDistribution()[0].GetTo())
	_, err = r.GetRule(ctx, &ententev1.GetRuleRequest{Service: "other"})
	routingtest.Refused(t, err, codes.NotFound, `there is no rule for "other"; 'entente rule list' lists all rules`)
	_, err = r.DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: "shop"})
	require.NoError(t, err)
	require.Equal(t, 2, priorities())
	_, err = r.DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: "shop"})
	routingtest.Refused(t, err, codes.NotFound, "there is no rule for")
}

// TestRulesCanBeRepaired: if a larger configuration makes rules too many, each of them can still be deleted or replaced
// alone.
func TestRulesCanBeRepaired(t *testing.T) {
	r, ctx := newFixture(t), routingtest.Admin(t)
	failover := func(region string) *ententev1.FailoverRule {
		return &ententev1.FailoverRule{From: region, To: []string{"ap"}}
	}
	rule := func(service string, regions ...string) *ententev1.RoutingRule {
		out := &ententev1.RoutingRule{Service: service}
		for _, region := range regions {
			out.Failover = append(out.Failover, failover(region))
		}
		return out
	}
	put := func(rules ...*ententev1.RoutingRule) error {
		_, err := r.PutRules(ctx, &ententev1.PutRulesRequest{Rules: rules})
		return err
	}
	require.NoError(t, put(rule("one", "x1"), rule("two", "x2"), rule("three", "x3")))
	for n := range 256 { // as many as one policy holds
		region := fmt.Sprintf("r%d", n)
		r.Planner.rules.configured.Failover = append(
			r.Planner.rules.configured.Failover,
			plan.FailoverSetting{From: region, To: []string{"ap"}},
		)
	}
	routingtest.Refused(
		t,
		put(rule("four", "x4")),
		codes.FailedPrecondition,
		"the rule for four together with the rule for all services and the configuration: there are 257",
	)
	routingtest.Refused(t, put(rule("*", "r0")), codes.FailedPrecondition, "the rule for one together with")
	require.NoError(t, put(rule("one", "r1")))
	_, err := r.DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: "two"})
	require.NoError(t, err)
	_, err = r.DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: "three"})
	require.NoError(t, err)
	require.NoError(t, put(rule("*", "r0")))
}

// TestRuleForUnknownRegion: a typing error in the region of a distribution leads to a warning too, because the
// distribution would never apply.
func TestRuleForUnknownRegion(t *testing.T) {
	r := newFixture(t)
	_, err := r.RegisterInstance(
		routingtest.Admin(t),
		&ententev1.RegisterInstanceRequest{Instance: routingtest.Registration()},
	)
	require.NoError(t, err)
	put, err := r.PutRules(routingtest.Admin(t), &ententev1.PutRulesRequest{Rules: []*ententev1.RoutingRule{
		{
			Service: "shop",
			Distribution: []*ententev1.DistributionRule{
				{From: "mars/*", To: map[string]uint32{routingtest.Registration().GetLocality().GetRegion(): 100}},
				{From: "*", To: map[string]uint32{"*": 100}},
			},
		},
	}})
	require.NoError(t, err)
	require.Equal(
		t,
		[]string{"the rule for shop names the region mars, in which no instance of any service is registered"},
		put.GetWarnings(),
	)
}

func TestInvalidRules(t *testing.T) {
	r, ctx := newFixture(t), routingtest.Admin(t)
	all := func(r *ententev1.RoutingRule) []*ententev1.RoutingRule {
		r.Service = "*"
		return []*ententev1.RoutingRule{r}
	}
	for want, rules := range map[string][]*ententev1.RoutingRule{
		"the request has 0 rules; send 1 to 100": nil,
		"there are two for shop":                 {{Service: "shop", Stale: "keep"}, {Service: "shop", Stale: "drop"}},
		"it is empty":                            all(&ententev1.RoutingRule{}),
		"a rule is for a service, or for *":      {{Service: "Shop", Stale: "keep"}},
		"stale is \"gone\"":                      all(&ententev1.RoutingRule{Stale: "gone"}),
		"are alternatives; set one of them": all(&ententev1.RoutingRule{
			OverprovisioningFactor: proto.Uint32(140),
			FailoverThreshold:      proto.Uint32(70),
		}),
		"overprovisioning_factor is 0": all(&ententev1.RoutingRule{OverprovisioningFactor: proto.Uint32(0)}),
		"failover from eu occurs twice": all(&ententev1.RoutingRule{
			Failover: []*ententev1.FailoverRule{{From: "eu", To: []string{"us"}}, {From: "eu", To: []string{"ap"}}},
		}),
		"the percentages add up to 90": all(&ententev1.RoutingRule{
			Distribution: []*ententev1.DistributionRule{{From: "*", To: map[string]uint32{"eu": 90}}},
		}),
	} {
		_, err := r.PutRules(ctx, &ententev1.PutRulesRequest{Rules: rules})
		routingtest.Refused(t, err, codes.InvalidArgument, want)
	}
	list, err := r.ListRules(ctx, &ententev1.ListRulesRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetRules())
}
