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

func joinTokenCommand(env *cli.Env) *cobra.Command {
	var ttl time.Duration
	var autoApprove, nonVoter bool
	cmd := &cobra.Command{
		Use:   "join-token ID",
		Short: "Make a token that admits the member with this ID once",
		Long: `Make a token that admits the member with this ID, once, and print it: it is a secret and cannot be
printed again. It replaces the open token of that ID. A member can do whatever an administrator can, so that only
an administrator makes tokens.

Put it into a file of mode 0600 that the new member's configuration names:

  join {
    addresses = ["eu-1.example.org:7440"]
    token     = "file:/etc/entente/join-token"
  }

The new member waits until 'entente cluster approve ID'. With --auto-approve it does not: the first
holder of the token that reaches a member becomes a member of the cluster. The removal of any member ends all tokens
made before.

A member gets a vote once it has caught up. With --non-voter it never does: it reads, signs and serves like the others,
and no change waits for it, so that it suits a distant place, or one that is down often.`,
		Example: `  entente cluster join-token eu-2 --ttl 1h >join-token`,
		Args:    cli.Arguments("ID"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			made, err := member.Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
				MemberId: args[0], Ttl: durationpb.New(ttl), AutoApprove: autoApprove, NonVoter: nonVoter,
			})
			if err != nil {
				return err
			}
			if env.Output == cli.OutputTable { // the token alone, so that it can go into a file
				fmt.Fprintf(env.Stderr, "Admits member %s until %s.\n", args[0], cli.Time(made.GetExpireTime()))
				if !autoApprove {
					fmt.Fprintf(env.Stderr, "It then waits for 'entente cluster approve %s'.\n", args[0])
				}
				fmt.Fprintln(env.Stdout, made.GetToken())
				return nil
			}
			return env.Print(made, nil)
		}),
	}
	const usual = 10 * time.Minute
	cmd.Flags().DurationVar(&ttl, "ttl", usual, "how long the token is valid, 24h at most")
	cmd.Flags().BoolVar(&autoApprove, "auto-approve", false, "the holder of the token needs no approval")
	cmd.Flags().BoolVar(&nonVoter, "non-voter", false, "the member never gets a vote")
	cmd.AddCommand(listTokensCommand(env), revokeTokenCommand(env))
	return cmd
}

func listTokensCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the join tokens that can still admit a member",
		Long: `List the join tokens that can still admit a member: the open ones, and those of joiners that wait for
approval. The tokens themselves are secrets, and are not shown.`,
		Example: `  entente cluster join-token list`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Cluster().ListJoinTokens(ctx, &ententev1.ListJoinTokensRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("MEMBER", "STATE", "EXPIRES", "APPROVAL", "MADE BY", "ON", "JOINER", "IDENTITY KEY")
				t.Wrap("MADE BY", "JOINER", "IDENTITY KEY")
				for _, token := range list.GetJoinTokens() {
					state, approval := "open", "by an administrator"
					if token.GetJoiner() != nil {
						state = "awaiting approval"
					}
					if token.GetAutoApprove() {
						approval = "automatic"
					}
					t.Row(
						token.GetMemberId(), state, cli.Since(token.GetExpireTime()), approval, token.GetCreatedBy(),
						token.GetCreatedOn(), token.GetJoiner().GetAddress(), token.GetJoiner().GetIdentity(),
					)
				}
				t.Otherwise("No join token can admit a member.")
			})
		}),
	}
}

func revokeTokenCommand(env *cli.Env) *cobra.Command {
	return env.IfExists(&cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke the open token of a member ID, or reject the joiner that waits for approval",
		Long: `Revoke the open token of a member ID, or reject the joiner that waits for approval with it. A member that
has been approved already is not affected: 'entente cluster remove' removes it.`,
		Example: `  entente cluster join-token revoke eu-2`,
		Args:    cli.Arguments("ID"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Cluster().RevokeJoinToken(ctx, &ententev1.RevokeJoinTokenRequest{MemberId: args[0]})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				if joiner := done.GetJoinToken().GetJoiner(); joiner != nil {
					t.Otherwise("Joiner %s at %s, identity key %s, is rejected.", joiner.GetId(), joiner.GetAddress(),
						joiner.GetIdentity())
					return
				}
				t.Otherwise("The join token for %s is revoked.", args[0])
			})
		}),
	})
}

func approveCommand(env *cli.Env) *cobra.Command {
	var identity string
	cmd := &cobra.Command{
		Use:   "approve ID",
		Short: "Make a joiner that waits for approval a member",
		Long: `Make a joiner that redeemed a join token and waits for approval a member. From then on it holds the
replicated state, votes, signs, and is an administrator on its own admin socket.

The joiner writes this command with the digest of its identity key to its log. With --identity, a joiner with
another key is not approved: it may be another machine, which got hold of the token first.`,
		Example: `  entente cluster approve eu-2
  entente cluster approve eu-2 --identity 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`,
		Args: cli.Arguments("ID"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Cluster().ApproveMember(ctx, &ententev1.ApproveMemberRequest{
				Id: args[0], Identity: identity,
			})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				t.Otherwise("Member %s at %s, identity key %s, is approved and joins within seconds.", args[0],
					done.GetMember().GetAddress(), done.GetMember().GetIdentity())
			})
		}),
	}
	cmd.Flags().StringVar(&identity, "identity", "", "the digest of the joiner's identity key, 64 hexadecimal digits")
	return cmd
}
