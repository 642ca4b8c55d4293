// Package hint has the command that shows hints and what-if scenarios.
package hint

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the command.
func Command(env *cli.Env) *cobra.Command {
	var locality cli.LocalityFlag
	var scenario []string
	var allCallers, watch bool
	once := func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
		routing := member.Routing()
		if !allCallers && len(scenario) == 0 {
			hint, err := routing.GetHint(ctx, &ententev1.GetHintRequest{Service: args[0], Locality: locality.Value})
			if err != nil {
				return err
			}
			env.WarnOfLocality(locality.Value, env.KnownLocalities(ctx, member, "", ""))
			warnOfIDs(ctx, env, member, hint)
			if err := env.Print(hint, hintTable(hint)); err != nil {
				return err
			}
			return unknown(hint)
		}
		answer, err := routing.SimulateHint(ctx, &ententev1.SimulateHintRequest{
			Service: args[0], Locality: locality.Value, Scenario: scenario, AllCallers: allCallers,
		})
		if err != nil {
			return err
		}
		return env.Print(answer, simulationTable(args[0], answer))
	}
	cmd := &cobra.Command{
		Use:   "hint NAME --locality REGION[/ZONE[/SUB-ZONE]]",
		Short: "Show where callers send requests for a service, now or in a what-if scenario",
		Long: `Show where callers in a locality send requests for a service: each instance with its priority, the
load of the priority, the locality's share of it, and for each instance that is left out the reason.

With --what-if the answer is for an imagined state. It changes nothing, and can be repeated; of two that match the
same instance, the later one counts:

  --what-if eu-west-1a=down              all instances in a zone, a region or a place (REGION/ZONE) are unhealthy
  --what-if eu-west-1=40%                40 percent of them are: in each locality the first by address, rounded up
  --what-if domain:us.example.org=expired    its trust is fresh, stale, expired or suspended
  --what-if 10.0.0.1:80=unhealthy        one instance is healthy, degraded, unhealthy or draining

With --all-callers the answer is the load of each region from the callers of all localities, now and then. The
number of callers is unknown: those of a locality are assumed to send requests in proportion to the weights of the
instances that are registered there, whatever their health, and to keep sending when their locality is down.`,
		Example: `  entente hint shop --locality eu-west-1/eu-west-1a
  entente hint shop --locality eu-west-1 --what-if eu-west-1a=down
  entente hint shop --all-callers --what-if domain:us.example.org=expired`,
		Args: cli.Arguments("NAME"),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if watch && (allCallers || len(scenario) > 0) {
				return cli.Usagef("--watch follows the present state: leave out --what-if and --all-callers")
			}
			if allCallers && cmd.Flags().Changed("locality") {
				return cli.Usagef("--all-callers covers all localities: leave out one of --all-callers and --locality")
			}
			if allCallers {
				return nil
			}
			return cli.Required("locality")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return env.Stream(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
					return follow(ctx, env, member, args[0], locality.Value)
				})(cmd, args)
			}
			return env.Call(once)(cmd, args)
		},
	}
	cmd.Flags().Var(&locality, "locality", "where the caller is: `REGION[/ZONE[/SUB-ZONE]]`")
	cmd.Flags().BoolVar(&watch, "watch", false, "keep running, and show each change")
	cmd.Flags().StringArrayVar(&scenario, "what-if", nil, "a condition of the scenario: `SUBJECT=STATE`; can be "+
		"repeated")
	cmd.Flags().BoolVar(&allCallers, "all-callers", false, "show the load of each region from the callers of all "+
		"localities")
	return cmd
}

// follow shows the hint and each change of it, until ctx ends.
func follow(
	ctx context.Context, env *cli.Env, member *cli.Member, service string, locality *ententev1.Locality,
) error {
	first := true
	for hint, err := range member.WatchHint(ctx, service, locality) {
		if err != nil {
			return err
		}
		if first {
			env.WarnOfLocality(locality, env.KnownLocalities(ctx, member, "", ""))
			warnOfIDs(ctx, env, member, hint)
		} else if env.Output == cli.OutputTable {
			fmt.Fprintln(env.Stdout)
		}
		first = false
		if err := env.Print(hint, hintTable(hint)); err != nil {
			return err
		}
	}
	return nil
}

// maxWarned bounds the trust domains of a hint that are looked up.
const maxWarned = 8

// warnOfIDs warns on standard error of trust domains of which a hint leaves out instances and which nobody here can
// verify: there is no bundle of them in use, or it has expired.
func warnOfIDs(ctx context.Context, env *cli.Env, member *cli.Member, h *ententev1.Hint) {
	left := map[string][]*ententev1.HintExclusion{}
	for _, x := range h.GetExcluded() {
		if id, err := spiffeid.FromString(x.GetSpiffeId()); err == nil {
			left[id.TrustDomain().Name()] = append(left[id.TrustDomain().Name()], x)
		}
	}
	domains := slices.Sorted(maps.Keys(left))
	for _, td := range domains[:min(len(domains), maxWarned)] {
		b, err := member.Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{
			TrustDomain: td, Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE},
		})
		if status.Code(err) != codes.NotFound && b.GetFreshness() != ententev1.Freshness_FRESHNESS_EXPIRED {
			continue
		}
		which := cli.Printable(left[td][0].GetSpiffeId())
		if n := len(left[td]); n > 1 {
			which = fmt.Sprintf("%d instances, %s among them", n, which)
		}
		fmt.Fprintf(env.Stderr, "entente: warning: nobody here can verify %s: %s\n", which,
			cli.Printable(left[td][0].GetReason()))
	}
}

// unknown returns an error if a service has no instance at all, which the hint states already.
func unknown(h *ententev1.Hint) error {
	if len(h.GetPriorities())+len(h.GetExcluded()) > 0 {
		return nil
	}
	return cli.Silent{Err: fmt.Errorf("service %s: %w", h.GetService(), client.ErrNotFound)}
}

func simulationTable(service string, answer *ententev1.SimulateHintResponse) func(*cli.Table) {
	return func(t *cli.Table) {
		if h := answer.GetHint(); h != nil {
			hintTable(h)(t)
		} else {
			t.Columns("REGION", "NOW", "THEN", "AVAILABLE NOW", "THEN")
			for _, r := range answer.GetRegions() {
				t.Row(r.GetRegion(), percent(r.GetNow()), percent(r.GetThen()),
					r.GetAvailableNow(), r.GetAvailableThen())
			}
			t.Otherwise("Service %s has no instance.", service)
		}
		var notes []string
		if t.Note != "" {
			notes = append(notes, t.Note)
		}
		if answer.GetUnservedNow()+answer.GetUnservedThen() > 0 {
			notes = append(
				notes,
				fmt.Sprintf(
					"Without a destination: %d%% of the requests now, %d%% then.", answer.GetUnservedNow(),
					answer.GetUnservedThen(),
				),
			)
		}
		for _, u := range answer.GetUnmatched() {
			notes = append(
				notes, fmt.Sprintf("Without effect: %s matches no instance of %s.", cli.Printable(u), service),
			)
		}
		t.Note = strings.Join(notes, "\n")
	}
}

func hintTable(h *ententev1.Hint) func(*cli.Table) {
	return func(t *cli.Table) {
		columns := []string{
			"PRIORITY",
			"LOAD",
			"LOCALITY",
			"SHARE",
			"ADDRESS",
			"HEALTH",
			"WEIGHT",
			"SPIFFE ID",
			"TRUST",
		}
		imports := hasImports(h)
		if imports {
			columns = append(columns, "IMPORTED FROM")
		}
		t.Columns(columns...)
		t.Wrap("LOCALITY", "ADDRESS", "SPIFFE ID")
		for _, p := range h.GetPriorities() {
			load := percent(p.GetLoad())
			if p.GetDegradedLoad() > 0 {
				load += fmt.Sprintf(" +%d%% degraded", p.GetDegradedLoad())
			}
			if p.GetPanic() {
				load += " (panic)"
			}
			for _, l := range p.GetLocalities() {
				for _, e := range l.GetEndpoints() {
					cells := []any{
						p.GetPriority(), load, cli.Locality(l.GetLocality()), percent(l.GetShare()), e.GetAddress(),
						endpointHealth(e), e.GetWeight(),
						e.GetSpiffeId(), cli.EnumName(e.GetFreshness()),
					}
					if imports {
						cells = append(cells, e.GetOrigin())
					}
					t.Row(cells...)
				}
			}
		}
		var notes []string
		for _, x := range h.GetExcluded() {
			notes = append(
				notes,
				fmt.Sprintf(
					"Left out: %s (%s) in %s: %s", cli.Printable(x.GetAddress()), cli.Printable(x.GetSpiffeId()),
					cli.Locality(x.GetLocality()), cli.Printable(x.GetReason()),
				),
			)
		}
		if h.GetReason() != "" {
			nowhere := fmt.Sprintf("No instance of %s can be called: %s.", h.GetService(), h.GetReason())
			notes = append([]string{cli.Printable(nowhere)}, notes...)
		}
		t.Otherwise("")
		t.Note = strings.Join(notes, "\n")
	}
}

// endpointHealth returns the health of an endpoint, and why it is offered although its lease was lost.
func endpointHealth(e *ententev1.HintEndpoint) string {
	if e.GetKept() {
		return cli.EnumName(e.GetHealth()) + " (kept: lease lost)"
	}
	return cli.EnumName(e.GetHealth())
}

func percent(n uint32) string { return fmt.Sprintf("%d%%", n) }

// hasImports reports whether a hint has instances of other clusters.
func hasImports(h *ententev1.Hint) bool {
	for _, p := range h.GetPriorities() {
		for _, l := range p.GetLocalities() {
			for _, e := range l.GetEndpoints() {
				if e.GetOrigin() != "" {
					return true
				}
			}
		}
	}
	return false
}
