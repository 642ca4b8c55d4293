package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/config"
)

func (a *app) ruleCommand() *cobra.Command {
	return group("rule", "Rules by which hints are made", a.rulePutCommand(), a.ruleListCommand(), a.ruleShowCommand(), a.ruleDeleteCommand())
}

func (a *app) rulePutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "put FILE",
		Short: "Create or replace rules, all in a file or none",
		Long: `Create or replace the rules in a file, all of them or none. A file holds blocks such as

  rule "*" {                      # for all services that have no say of their own
    stale              = "demote" # or keep, drop: instances whose trust is stale
    panic_threshold    = 50       # percent; 0 turns panic off
    failover_threshold = 70       # percent; or overprovisioning_factor = 140
    failover "eu-west-1" { to = ["eu-central-1", "us-east-1"] }
  }
  rule "shop" {
    distribution "eu-west-1" { to = { "eu-west-1" = 90, "eu-central-1" = 10 } }
  }

or JSON, as 'entente rule list --output json' prints it. FILE - is standard input.`,
		Args: arguments("FILE"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			content, err := a.readFile(rulesInput, args[0])
			if err != nil {
				return err
			}
			rules, err := config.ParseRules(args[0], content)
			if err != nil {
				return err
			}
			put, err := ententev1.NewRoutingServiceClient(conn).PutRules(ctx, &ententev1.PutRulesRequest{Rules: rules})
			if err != nil {
				return err
			}
			return a.print(put, func(t *table) {
				rulesTable(t, put.GetRules())
				var notes []string
				for _, w := range put.GetWarnings() {
					notes = append(notes, "Warning: "+printable(w)+".")
				}
				t.note = strings.Join(notes, "\n")
			})
		}),
	}
}

func (a *app) ruleListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the rules",
		Args:  arguments(),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
			list, err := ententev1.NewRoutingServiceClient(conn).ListRules(ctx, &ententev1.ListRulesRequest{})
			if err != nil {
				return err
			}
			return a.print(list, func(t *table) {
				rulesTable(t, list.GetRules())
				t.otherwise("There is no rule: hints are made as the configuration says.")
			})
		}),
	}
}

func (a *app) ruleShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show SERVICE",
		Short: "Show the rule for a service, or * for all",
		Long: `Show the rule for a service, or the one for all with *. Hints for a service follow its own rule where that says something, then
the rule for all, then the configuration.`,
		Args: arguments("SERVICE"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			rule, err := ententev1.NewRoutingServiceClient(conn).GetRule(ctx, &ententev1.GetRuleRequest{Service: args[0]})
			if err != nil {
				return err
			}
			return a.print(rule, func(t *table) { rulesTable(t, []*ententev1.RoutingRule{rule}) })
		}),
	}
}

func (a *app) ruleDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete SERVICE",
		Short: "Delete the rule for a service, or * for all",
		Args:  arguments("SERVICE"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			done, err := ententev1.NewRoutingServiceClient(conn).DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: args[0]})
			if err != nil {
				return err
			}
			return a.print(done, func(t *table) { t.otherwise("The rule for %s is deleted.", args[0]) })
		}),
	}
}

func rulesTable(t *table, rules []*ententev1.RoutingRule) {
	t.columns("SERVICE", "SAYS", "CHANGED")
	for _, r := range rules {
		t.row(r.GetService(), strings.Join(ruleText(r), "; "), since(r.GetUpdateTime()))
	}
}

// ruleText says what a rule says, in the order of its fields.
func ruleText(r *ententev1.RoutingRule) []string {
	var out []string
	for _, n := range []struct {
		name  string
		value *uint32
	}{{"overprovisioning_factor", r.OverprovisioningFactor}, {"failover_threshold", r.FailoverThreshold}, {"panic_threshold", r.PanicThreshold}} {
		if n.value != nil {
			out = append(out, fmt.Sprintf("%s %d", n.name, *n.value))
		}
	}
	if r.GetStale() != "" {
		out = append(out, "stale "+r.GetStale())
	}
	for _, f := range r.GetFailover() {
		out = append(out, "failover from "+f.GetFrom()+" to "+strings.Join(f.GetTo(), ", "))
	}
	for _, d := range r.GetDistribution() {
		var parts []string
		for place, percent := range d.GetTo() {
			parts = append(parts, fmt.Sprintf("%s %d%%", place, percent))
		}
		slices.Sort(parts)
		out = append(out, "distribution from "+d.GetFrom()+" to "+strings.Join(parts, ", "))
	}
	return out
}
