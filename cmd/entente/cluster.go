package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Members, and the replicated state as a whole",
		a.clusterMembersCommand(), a.clusterRemoveCommand(), a.clusterTransferCommand(), a.clusterJoinTokenCommand(), a.snapshotCommand())
}

func (a *app) clusterMembersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "members",
		Short: "List the members",
		Args:  arguments(),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
			list, err := ententev1.NewClusterServiceClient(conn).ListMembers(ctx, &ententev1.ListMembersRequest{})
			if err != nil {
				return err
			}
			return a.print(list, func(t *table) {
				t.columns("ID", "ADDRESS", "REGION", "ZONE", "ROLE", "ALIVE", "LAST HEARD", "JOINED", "VERSION")
				for _, m := range list.GetMembers() {
					t.row(m.GetId(), m.GetAddress(), m.GetRegion(), m.GetZone(), memberRole(m), yes(m.GetAlive()), since(m.GetLastHeard()), since(m.GetJoinTime()), m.GetVersion())
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

func (a *app) clusterRemoveCommand() *cobra.Command {
	var compromised bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a member and its identity key, and retire its authorities",
		Args:  arguments("ID"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			done, err := ententev1.NewClusterServiceClient(conn).RemoveMember(ctx, &ententev1.RemoveMemberRequest{Id: args[0], Compromised: compromised})
			if err != nil {
				return err
			}
			return a.print(done, func(t *table) { t.otherwise("Member %s is removed.", args[0]) })
		}),
	}
	cmd.Flags().BoolVar(&compromised, "compromised", false, "its keys may be in other hands: revoke its authorities, and the open invitations that name it, at once")
	return cmd
}

func (a *app) clusterTransferCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "transfer [ID]",
		Short: "Hand leadership over, to a named member or to any",
		Args:  arguments("[ID]"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			done, err := ententev1.NewClusterServiceClient(conn).TransferLeadership(ctx, &ententev1.TransferLeadershipRequest{Id: optional(args)})
			if err != nil {
				return err
			}
			return a.print(done, func(t *table) { t.otherwise("Member %s leads.", done.GetLeaderId()) })
		}),
	}
}

func (a *app) clusterJoinTokenCommand() *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "join-token",
		Short: "Make a token that admits one member once",
		Long: `Make a token that admits one member, once, and print it: it is a secret and cannot be shown again.

Put it into a file of mode 0600 that the new member's configuration names:

  join {
    addresses = ["eu-1.example.org:7440"]
    token     = "file:/etc/entente/join-token"
  }`,
		Args: arguments(),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
			made, err := ententev1.NewClusterServiceClient(conn).CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{Ttl: durationpb.New(ttl)})
			if err != nil {
				return err
			}
			if a.flags.output == outputTable { // the token alone, so that it can go into a file
				fmt.Fprintf(a.stderr, "Admits one member until %s.\n", exact(made.GetExpireTime()))
				fmt.Fprintln(a.stdout, made.GetToken())
				return nil
			}
			return a.print(made, nil)
		}),
	}
	const usual = 10 * time.Minute
	cmd.Flags().DurationVar(&ttl, "ttl", usual, "how long it admits, 24h at most")
	return cmd
}
