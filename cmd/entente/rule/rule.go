// Package rule has the commands for routing rules.
package rule

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/config"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group(
		"rule", "Rules by which hints are made", putCommand(env), listCommand(env), showCommand(env),
		deleteCommand(env),
	)
}

var rulesInput = cli.Input{Name: "FILE", Remedy: "name a file of rules, as 'entente rule put --help' shows one"}

func putCommand(env *cli.Env) *cobra.Command {
	var etag *string
	cmd := &cobra.Command{
		Use:   "put FILE",
		Short: "Create or replace rules, all in a file or none",
		Long: `Create or replace the rules in a file, all of them or none. A file holds blocks such as

  rule "*" {                      # for all services without an own setting
    stale              = "demote" # or keep, drop: instances whose trust is stale
    panic_threshold    = 50       # percent; 0 turns panic off
    failover_threshold = 70       # percent; or overprovisioning_factor = 140
    failover "eu-west-1" { to = ["eu-central-1", "us-east-1"] }
  }
  rule "shop" {
    distribution "eu-west-1" { to = { "eu-west-1" = 90, "eu-central-1" = 10 } }
  }

or JSON, as 'entente rule list --output json' prints it; etags in it are ignored. FILE - is standard input.`,
		Example: `  entente rule put rules.hcl`,
		Args:    cli.Arguments("FILE"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			content, err := env.ReadFile(rulesInput, args[0])
			if err != nil {
				return err
			}
			rules, err := config.ParseRules(args[0], content)
			if err != nil {
				return err
			}
			for _, r := range rules {
				r.Etag = *etag
			}
			if *etag != "" && len(rules) != 1 {
				return cli.Usagef("--etag is for one rule, and the file has %d", len(rules))
			}
			put, err := member.Routing().PutRules(ctx, &ententev1.PutRulesRequest{Rules: rules})
			if err != nil {
				return err
			}
			return env.Print(put, func(t *cli.Table) {
				rulesTable(t, put.GetRules())
				var notes []string
				for _, w := range put.GetWarnings() {
					notes = append(notes, "Warning: "+cli.Printable(w)+".")
				}
				t.Note = strings.Join(notes, "\n")
			})
		}),
	}
	etag = cli.PutEtag(cmd)
	return cmd
}

func listCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the rules",
		Long: `List the rules, by service. The rule for * holds for all services without a setting of their own.
Warnings about a rule are shown when it is put.`,
		Example: `  entente rule list
  entente rule list -o json >rules.json`,
		Args: cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Routing().ListRules(ctx, &ententev1.ListRulesRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				rulesTable(t, list.GetRules())
				t.Otherwise("There is no rule: hints follow the configuration.")
			})
		}),
	}
}

func showCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show SERVICE",
		Short: "Show the rule for a service, or * for all",
		Long: `Show the rule for a service, or the one for all with *. A setting of a service comes from its own
rule, else from the rule for all, else from the configuration.`,
		Example: `  entente rule show shop
  entente rule show '*'`,
		Args: cli.Arguments("SERVICE"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			rule, err := member.Routing().GetRule(ctx, &ententev1.GetRuleRequest{Service: args[0]})
			if err != nil {
				return err
			}
			return env.Print(rule, func(t *cli.Table) {
				t.Field("service", rule.GetService())
				for _, setting := range ruleText(rule) {
					t.Field("setting", setting)
				}
				t.Field("changed", cli.Time(rule.GetUpdateTime()))
			})
		}),
	}
}

func deleteCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete SERVICE",
		Short: "Delete the rule for a service, or * for all",
		Long: `Delete the rule for a service, or the one for all with *. Hints then follow the rule for all, else the
configuration. The change takes effect at once.`,
		Example: `  entente rule delete shop
  entente rule delete '*' --if-exists`,
		Args: cli.Arguments("SERVICE"),
	}
	etag := cli.Etag(cmd)
	cmd.RunE = env.Previews(cmd).Run(nil,
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Routing().DeleteRule(ctx, &ententev1.DeleteRuleRequest{
				Service: args[0], Etag: *etag, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Routing().DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: args[0], Etag: *etag})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { t.Otherwise("The rule for %s is deleted.", args[0]) })
		})
	return env.IfExists(cmd)
}

func rulesTable(t *cli.Table, rules []*ententev1.RoutingRule) {
	t.Columns("SERVICE", "RULE", "CHANGED")
	for _, r := range rules {
		t.Row(r.GetService(), strings.Join(ruleText(r), "; "), cli.Since(r.GetUpdateTime()))
	}
}

// ruleText returns the settings of a rule, in the order of its fields.
func ruleText(r *ententev1.RoutingRule) []string {
	var out []string
	for _, n := range []struct {
		name  string
		value *uint32
	}{
		{"overprovisioning_factor", r.OverprovisioningFactor},
		{"failover_threshold", r.FailoverThreshold},
		{"panic_threshold", r.PanicThreshold},
	} {
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
