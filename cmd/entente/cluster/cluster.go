// Package cluster has the commands for members and for snapshots of the replicated state.
package cluster

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("cluster", "Members, and the replicated state as a whole",
		membersCommand(env), removeCommand(env), repairCommand(env), transferCommand(env), joinTokenCommand(env),
		approveCommand(env), autopilotCommand(env),
		snapshotCommand(env), recoverCommand(env))
}

func membersCommand(env *cli.Env) *cobra.Command {
	var stale *bool
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the members, and the joiners that wait for approval",
		Long: `List the members, and the joiners that wait for approval. LAST HEARD is when the leader last received
something from the member; one that was silent for three seconds is not alive. LAG is how many revisions the member
was behind the leader then.`,
		Example: `  entente cluster members
  entente cluster members --stale`,
		Args: cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := cli.Read(ctx, env, *stale,
				func(ctx context.Context, o *ententev1.ReadOptions) (*ententev1.ListMembersResponse, error) {
					return member.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{Read: o})
				})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("ID", "ADDRESS", "REGION", "ZONE", "ROLE", "ALIVE", "LAST HEARD", "LAG", "JOINED", "VERSION")
				for _, m := range list.GetMembers() {
					t.Row(
						m.GetId(), m.GetAddress(), m.GetRegion(), m.GetZone(), memberRole(m), cli.YesNo(m.GetAlive()),
						cli.Since(m.GetLastContact()), lag(m, list.GetMembers()), cli.Since(m.GetJoinTime()),
						m.GetVersion(),
					)
				}
				for _, m := range list.GetAwaitingApproval() {
					t.Row(m.GetId(), m.GetAddress(), m.GetRegion(), m.GetZone(), "awaiting approval", "", "", "", "",
						m.GetVersion())
				}
			})
		}),
	}
	stale = cli.Stale(cmd)
	return cmd
}

// lag returns how many revisions a member was behind the leader at its last heartbeat; "" if that is not known.
func lag(m *ententev1.Member, all []*ententev1.Member) string {
	for _, leader := range all {
		if leader.GetLeader() && leader.GetReport() != nil && m.GetReport() != nil {
			ahead, applied := leader.GetReport().GetAppliedRevision(), m.GetReport().GetAppliedRevision()
			return fmt.Sprint(ahead - min(ahead, applied))
		}
	}
	return ""
}

func memberRole(m *ententev1.Member) string {
	role := "non-voter"
	switch {
	case m.GetNonVoter():
		role = "non-voter for good"
	case m.GetLeader():
		role = "leader"
	case m.GetVoter():
		role = "voter"
	}
	if m.GetDiverged() {
		role += ", diverged"
	}
	if m.GetRepairing() {
		role += ", in repair"
	}
	return role
}

func removeCommand(env *cli.Env) *cobra.Command {
	var compromised bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a member and its identity key, and retire its authorities",
		Long: `Remove a member and its identity key, and retire its authorities. It has no vote and no connection ` +
			`any more, gets
no state, and its commands are refused. Every join token that can still admit a member ends.

A process of the member that runs and can be reached applies the removal and ends with status 9. One that was down
ends once it is started and a majority of the members that it knows answers that it was removed. What a process can do
that reaches nobody: answer on its admin socket and at its bundle endpoint from the state that it had. It also signs
SVIDs, for up to signing_grace (1h by default) after its last contact with the leader; verifiers accept what it signed
until the times that this command shows.

With --compromised its authorities are revoked instead, and with them all that they signed, as soon as verifiers
have the new bundle. The grants that were made on it or that it restored from a snapshot are revoked, and so are the
open invitations that name it. The command lists the administrative changes that were made on it: check each. A
compromised member with other software can have proposed any change of any table in the name of anybody, which no list
shows: compare grants, domains, relationships and routing rules with what you expect, or restore a snapshot from
before.`,
		Example: `  entente cluster remove eu-3 --dry-run
  entente cluster remove eu-3 --compromised`,
		Args: cli.Arguments("ID"),
	}
	cmd.Flags().BoolVar(&compromised, "compromised", false, "its keys may be stolen: revoke its authorities, "+
		"the grants made on it, and the open invitations that name it, at once")
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string { return "Remove member " + args[0] },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Cluster().RemoveMember(ctx, &ententev1.RemoveMemberRequest{
				Id: args[0], Compromised: compromised, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Cluster().RemoveMember(ctx, &ententev1.RemoveMemberRequest{
				Id: args[0], Compromised: compromised,
			})
			if err != nil {
				return err
			}
			if env.Output != cli.OutputTable {
				return env.Print(done, nil)
			}
			printRemoval(env.Stdout, args[0], compromised, done)
			return nil
		})
	return env.IfExists(cmd)
}

// printRemoval prints what a removed member can still do and, if it was compromised, what was done on it.
func printRemoval(w io.Writer, id string, compromised bool, done *ententev1.RemoveMemberResponse) {
	fmt.Fprintf(w, "Member %s is removed. Join tokens that were made before are void.\n", id)
	if len(done.GetRemaining()) == 0 {
		fmt.Fprintln(w, "Verifiers accept nothing that it signed, as soon as they have the new bundle.")
	}
	for _, r := range done.GetRemaining() {
		fmt.Fprintf(w, "Verifiers accept what authority %s of %s signed until %s: %s.\n", r.GetAuthorityId(),
			r.GetTrustDomain(), cli.Time(r.GetUntil()), r.GetDetail())
	}
	if !compromised {
		return
	}
	for _, g := range done.GetRevokedGrants() {
		fmt.Fprintf(w, "Revoked, because it was granted on %s: %s of %s in %s.\n", id,
			strings.ToLower(strings.TrimPrefix(g.GetRole().String(), "ROLE_")), g.GetSpiffeId(),
			cmp.Or(g.GetTrustDomain(), "every domain"))
		if services := g.GetServices(); len(services) > 0 {
			fmt.Fprintf(w, "  The names of services without another owner are reserved now: %s.\n",
				cli.Printable(strings.Join(services, ", ")))
		}
	}
	fmt.Fprintf(w, "%d administrative changes in the record were made on %s. A member with other software can have "+
		"made more without a record, and in any name while it led: compare the state with what you expect.\n",
		len(done.GetChanges()), id)
	for _, c := range done.GetChanges() {
		fmt.Fprintf(w, "  %d  %s  %s  %s  by %s\n", c.GetNumber(), cli.Time(c.GetTime()), c.GetAction(), c.GetObject(),
			c.GetCaller())
	}
}

func repairCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "repair ID",
		Short: "Rebuild a member whose files are damaged, or whose state differs, from the others",
		Long: `Rebuild a member from the others.

The member loses its vote by a committed change, which needs a quorum of the others. When it is started again, it
deletes its log and its snapshots, receives the state from the others, and gets its vote back when it has caught up.
Its id, its keys and its audit log stay. A member that runs stops first.`,
		Example: `  entente cluster repair eu-3`,
		Args:    cli.Arguments("ID"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Cluster().RepairMember(ctx, &ententev1.RepairMemberRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				t.Otherwise("Member %s has no vote now. Start it: it is rebuilt from the others.", args[0])
			})
		}),
	}
}

func transferCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "transfer [ID]",
		Short: "Transfer leadership, to a named member or to any",
		Long: `Transfer leadership to a named member, or to any. Nothing is lost: changes wait for
the new leader. Use it before the leader's machine is maintained.`,
		Example: `  entente cluster transfer
  entente cluster transfer eu-2`,
		Args: cli.Arguments("[ID]"),
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
