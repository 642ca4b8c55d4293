package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func tokenCommand(env *cli.Env) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a one-time token for one agent",
		Long: `Make a one-time token for one agent, and print it. The token is a secret: its holder becomes the agent
of that name, and has the SVIDs of all entries for it. It names the members of the cluster, so that an agent sends
the secret to nobody else. A new token for the same name ends the one before.`,
		Example: `  entente agent token node-1 --ttl 1h >agent-token`,
		Args:    cli.Arguments("NAME"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			made, err := member.Agents().CreateAgentToken(ctx, &ententev1.CreateAgentTokenRequest{
				Agent: args[0], Ttl: durationpb.New(ttl),
			})
			if err != nil {
				return err
			}
			if env.Output == cli.OutputTable { // the token alone, so that it can go into a file
				fmt.Fprintf(env.Stderr, "Admits the agent %s until %s.\n", made.GetSpiffeId(),
					cli.Time(made.GetExpireTime()))
				fmt.Fprintln(env.Stdout, made.GetToken())
				return nil
			}
			return env.Print(made, nil)
		}),
	}
	const usual = 10 * time.Minute
	cmd.Flags().DurationVar(&ttl, "ttl", usual, "how long the token is valid, 24h at most")
	cmd.AddCommand(tokenListCommand(env), tokenRevokeCommand(env))
	return cmd
}

func tokenListCommand(env *cli.Env) *cobra.Command {
	var stale *bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the open tokens",
		Long: `List the tokens that admit an agent now. The tokens themselves are secrets, and are not shown. One that
was used or has expired is not listed.`,
		Example: `  entente agent token list`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := cli.Read(ctx, env, *stale,
				func(ctx context.Context, o *ententev1.ReadOptions) (*ententev1.ListAgentTokensResponse, error) {
					return member.Agents().ListAgentTokens(ctx, &ententev1.ListAgentTokensRequest{Read: o})
				})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("AGENT", "EXPIRES", "CREATED", "CREATED BY", "ID")
				for _, token := range list.GetAgentTokens() {
					t.Row(token.GetAgent(), cli.Time(token.GetExpireTime()), cli.Since(token.GetCreateTime()),
						token.GetCreatedBy(), token.GetId())
				}
				t.Otherwise("There is no open token.")
			})
		}),
	}
	stale = cli.Stale(cmd)
	return cmd
}

func tokenRevokeCommand(env *cli.Env) *cobra.Command {
	return env.IfExists(&cobra.Command{
		Use:     "revoke NAME",
		Short:   "End the open token of an agent",
		Long:    `End the open token of an agent. An agent that it has admitted stays: see 'entente agent ban'.`,
		Example: `  entente agent token revoke node-1`,
		Args:    cli.Arguments("NAME"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			revoked, err := member.Agents().RevokeAgentToken(ctx, &ententev1.RevokeAgentTokenRequest{Agent: args[0]})
			if err != nil {
				return err
			}
			return env.Print(revoked, func(t *cli.Table) { t.Otherwise("The token for agent %s is void.", args[0]) })
		}),
	})
}
