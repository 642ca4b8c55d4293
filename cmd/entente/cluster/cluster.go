// Package cluster has the commands for members and for snapshots of the replicated state.
package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("cluster", "Members, and the replicated state as a whole",
		membersCommand(env), removeCommand(env), transferCommand(env), joinTokenCommand(env), snapshotCommand(env))
}

func membersCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "members",
		Short: "List the members",
		Args:  cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("ID", "ADDRESS", "REGION", "ZONE", "ROLE", "ALIVE", "LAST CONTACT", "JOINED", "VERSION")
				for _, m := range list.GetMembers() {
					t.Row(
						m.GetId(), m.GetAddress(), m.GetRegion(), m.GetZone(), memberRole(m), cli.YesNo(m.GetAlive()),
						cli.Since(m.GetLastContact()), cli.Since(m.GetJoinTime()), m.GetVersion(),
					)
				}
			})
		}),
	}
}

func memberRole(m *ententev1.Member) string {
	switch {
	case m.GetLeader():
		return "leader"
	case m.GetVoter():
		return "voter"
	}
	return "non-voter"
}

func removeCommand(env *cli.Env) *cobra.Command {
	var compromised bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a member and its identity key, and retire its authorities",
		Args:  cli.Arguments("ID"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Cluster().RemoveMember(ctx, &ententev1.RemoveMemberRequest{
				Id: args[0], Compromised: compromised,
			})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { t.Otherwise("Member %s is removed.", args[0]) })
		}),
	}
	cmd.Flags().BoolVar(&compromised, "compromised", false, "its keys may be stolen: revoke its authorities, and "+
		"the open "+
		"invitations that name it, at once")
	return cmd
}

func transferCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "transfer [ID]",
		Short: "Transfer leadership, to a named member or to any",
		Args:  cli.Arguments("[ID]"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Cluster().TransferLeadership(ctx, &ententev1.TransferLeadershipRequest{
				Id: cli.Optional(args),
			})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { t.Otherwise("Member %s leads.", done.GetLeaderId()) })
		}),
	}
}

func joinTokenCommand(env *cli.Env) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "join-token",
		Short: "Make a token that admits one member once",
		Long: `Make a token that admits one member, once, and print it: it is a secret and cannot be printed again.

Put it into a file of mode 0600 that the new member's configuration names:

  join {
    addresses = ["eu-1.example.org:7440"]
    token     = "file:/etc/entente/join-token"
  }`,
		Args: cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			made, err := member.Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
				Ttl: durationpb.New(ttl),
			})
			if err != nil {
				return err
			}
			if env.Output == cli.OutputTable { // the token alone, so that it can go into a file
				fmt.Fprintf(env.Stderr, "Admits one member until %s.\n", cli.Time(made.GetExpireTime()))
				fmt.Fprintln(env.Stdout, made.GetToken())
				return nil
			}
			return env.Print(made, nil)
		}),
	}
	const usual = 10 * time.Minute
	cmd.Flags().DurationVar(&ttl, "ttl", usual, "how long the token is valid, 24h at most")
	return cmd
}
