package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func autopilotCommand(env *cli.Env) *cobra.Command {
	return cli.Group("autopilot", "Automatic removal of dead members",
		showAutopilotCommand(env), setAutopilotCommand(env))
}

func showAutopilotCommand(env *cli.Env) *cobra.Command {
	var stale *bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the settings of the autopilot, and the members that it is about to remove",
		Long: `Show the settings of the autopilot, how many losses the cluster tolerates, and what happens to each
member that is dead or waits for its vote. A dead member is removed only if others replace it: as many members with a
vote as min_quorum requires are alive without it, each a member for ten minutes at least.`,
		Example: `  entente cluster autopilot show
  entente cluster autopilot show -o json`,
		Args: cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			shown, err := cli.Read(ctx, env, *stale,
				func(ctx context.Context, o *ententev1.ReadOptions) (*ententev1.GetAutopilotResponse, error) {
					return member.Cluster().GetAutopilot(ctx, &ententev1.GetAutopilotRequest{Read: o})
				})
			if err != nil {
				return err
			}
			return env.Print(shown, func(t *cli.Table) {
				printSettings(t, shown.GetAutopilot())
				t.Field("failure tolerance", fmt.Sprint(shown.GetFailureTolerance()))
				for _, m := range shown.GetMembers() {
					text := m.GetVerdict()
					if at := m.GetRemoveTime(); at != nil {
						text += ": " + cli.Time(at)
					}
					t.Field("member "+m.GetId(), text)
				}
				for _, w := range shown.GetWarnings() {
					t.Field("warning", w)
				}
			})
		}),
	}
	stale = cli.Stale(cmd)
	return cmd
}

func printSettings(t *cli.Table, a *ententev1.Autopilot) {
	t.Field("remove dead members", cli.YesNo(a.GetRemoveDeadMembers()))
	t.Field("dead after", cli.Duration(a.GetDeadAfter()))
	t.Field("min quorum", fmt.Sprint(a.GetMinQuorum()))
}

func setAutopilotCommand(env *cli.Env) *cobra.Command {
	var remove bool
	var deadAfter time.Duration
	var minQuorum uint32
	var etag *string
	wanted := func(cmd *cobra.Command) (*ententev1.Autopilot, []string) {
		a, fields := &ententev1.Autopilot{}, []string{}
		if cmd.Flags().Changed("remove-dead-members") {
			a.RemoveDeadMembers, fields = remove, append(fields, "remove_dead_members")
		}
		if cmd.Flags().Changed("dead-after") {
			a.DeadAfter, fields = durationpb.New(deadAfter), append(fields, "dead_after")
		}
		if cmd.Flags().Changed("min-quorum") {
			a.MinQuorum, fields = minQuorum, append(fields, "min_quorum")
		}
		return a, fields
	}
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Change settings of the autopilot",
		Long: `Change settings of the autopilot: only those that are given. They are part of the replicated
state, and hold for every leader.`,
		Example: `  entente cluster autopilot set --dead-after 72h
  entente cluster autopilot set --remove-dead-members=false`,
		Args: cli.Arguments(),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if _, fields := wanted(cmd); len(fields) == 0 {
				return cli.Usagef("nothing to change: give at least one flag")
			}
			return nil
		},
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, _ []string) error {
			a, fields := wanted(cmd)
			done, err := member.Cluster().UpdateAutopilot(ctx, &ententev1.UpdateAutopilotRequest{
				Autopilot: a, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}, Etag: *etag,
			})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { printSettings(t, done.GetAutopilot()) })
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&remove, "remove-dead-members", true, "remove members that have been dead for long")
	f.DurationVar(&deadAfter, "dead-after", 0, "time without a heartbeat after which a member is removed, 10m to 720h")
	f.Uint32Var(&minQuorum, "min-quorum", 0, "how many members with a vote must be alive without it, 1 to 9")
	etag = cli.Etag(cmd)
	return cmd
}
