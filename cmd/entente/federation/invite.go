package federation

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func inviteCommand(env *cli.Env) *cobra.Command {
	var own, foreign, home string
	var ttl time.Duration
	var approve bool
	var advertise []string
	cmd := &cobra.Command{
		Use:   "invite --domain OWN --for FOREIGN",
		Short: "Make a token by which one other cluster federates with this one",
		Long: `Make a token by which the cluster that hosts FOREIGN federates with this one, once, and print it:
it is a secret until it is used, and cannot be printed again. Give it to the other operator by a way that you trust.
There,

  entente federation accept TOKEN

makes the relationships of both sides. Until both operators have approved ('entente federation approve', or
--approve here and there) nothing is served or accepted under them.

The token names the addresses of the members, and the other side stays with them. Where it reaches the members by other
addresses, behind a load balancer or NAT, --advertise gives these; the URLs of the bundle endpoints are at the same
hosts then, unless bundle_endpoint.advertise is configured. The web roots of an https_web endpoint (roots_file in its
profile) are sent when the token is used; their digest is printed here and there, so that it can be compared.`,
		Example: `  entente federation invite --domain eu.example.org --for us.example.org --approve
  entente federation invite --domain eu.example.org --for us.example.org --advertise lb.example.org:7440`,
		Args:    cli.Arguments(),
		PreRunE: cli.Required("domain", "for"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			made, err := member.Federation().CreateInvitation(ctx, &ententev1.CreateInvitationRequest{
				TrustDomain: own, ForeignTrustDomain: foreign, ForeignHomeTrustDomain: home,
				Ttl: durationpb.New(ttl), Approve: approve, Advertise: advertise,
			})
			if err != nil {
				return err
			}
			if env.Output == cli.OutputTable { // the token alone, so that it can go into a file
				i := made.GetInvitation()
				fmt.Fprintf(
					env.Stderr, "Invitation %s of %s, for %s alone, until %s.\n", i.GetId(), i.GetTrustDomain(),
					i.GetForeignTrustDomain(), cli.Time(i.GetExpireTime()),
				)
				fmt.Fprintf(env.Stderr, "The other side calls %s, and fetches from %s.\n",
					strings.Join(made.GetAddresses(), ", "), strings.Join(made.GetUrls(), ", "))
				if digest := made.GetWebRootsSha256(); digest != "" {
					fmt.Fprintf(env.Stderr, "It verifies these by the web roots of SHA-256 %s.\n", digest)
				}
				printWarnings(env, made.GetWarnings())
				if !i.GetApproved() {
					fmt.Fprintf(
						env.Stderr, "Once it is accepted: entente federation approve %s\n", i.GetForeignTrustDomain(),
					)
				}
				fmt.Fprintln(env.Stdout, made.GetToken())
				return nil
			}
			return env.Print(made, nil)
		}),
	}
	const usual = time.Hour
	cmd.Flags().StringVar(&own, "domain", "", "the hosted trust domain that is offered")
	cmd.Flags().StringVar(&foreign, "for", "", "the only trust domain that can accept")
	cmd.Flags().StringVar(&home, "for-home", "",
		"the home trust domain of the cluster that hosts it, if it is another "+
			"one: it is trusted too")
	cmd.Flags().DurationVar(&ttl, "ttl", usual, "how long it can be accepted, 168h at most")
	cmd.Flags().BoolVar(&approve, "approve", false, "approve the agreement at once")
	addAdvertise(cmd, &advertise)
	return cmd
}

// addAdvertise adds the flag for the addresses that the other side of an agreement uses.
func addAdvertise(cmd *cobra.Command, to *[]string) {
	cmd.Flags().StringArrayVar(to, "advertise", nil, "`HOST:PORT` at which the other side reaches the cluster port, "+
		"such as that of a load balancer; can be repeated (default: the members' own)")
}

func printWarnings(env *cli.Env, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintf(env.Stderr, "entente: %s\n", cli.Printable(warning))
	}
}

func acceptCommand(env *cli.Env) *cobra.Command {
	var approve bool
	var home string
	var advertise []string
	cmd := &cobra.Command{
		Use:   "accept TOKEN",
		Short: "Accept another cluster's invitation ('-' reads the token from standard input)",
		Long: `Accept the invitation of another cluster. A member here calls one of that cluster's members, whose
identity keys the token names, and proves the secret to it alone; both sides exchange bundles, endpoints and
addresses.

A command line can be read by other users of this machine: '-' reads the token from standard input. If the response
is lost, accept the same token again.`,
		Example: `  entente federation accept - --approve <token`,
		Args:    cli.Arguments("TOKEN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, args []string) error {
			text := args[0]
			if text == "-" {
				const most = 64 << 10
				raw, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), most))
				if err != nil {
					return fmt.Errorf("read the token from standard input: %w", err)
				}
				text = strings.TrimSpace(string(raw))
			}
			done, err := member.Federation().RedeemInvitation(ctx, &ententev1.RedeemInvitationRequest{
				Token: text, Approve: approve, HomeTrustDomain: home, Advertise: advertise,
			})
			if err != nil {
				return err
			}
			if env.Output != cli.OutputTable {
				return env.Print(done, nil)
			}
			printWarnings(env, done.GetWarnings())
			return printRelationship(env)(done.GetRelationship(), nil)
		}),
	}
	cmd.Flags().BoolVar(&approve, "approve", false, "approve the agreement at once")
	addAdvertise(cmd, &advertise)
	cmd.Flags().StringVar(&home, "home", "", "the home trust domain of the inviting cluster, if it is another one: "+
		"it is "+
		"trusted too")
	return cmd
}

func invitationsCommand(env *cli.Env) *cobra.Command {
	var revoke string
	cmd := &cobra.Command{
		Use:   "invitations [ID] [--revoke ID]",
		Short: "List the invitations and their states, show one, or revoke one",
		Long: `List the invitations and their states, show the one with an ID, or revoke an open one. The tokens
themselves are secrets, and are not shown. ADVERTISED has the addresses that were given with --advertise, if any
were.`,
		Example: `  entente federation invitations
  entente federation invitations 5d41402abc4b2a76b9719d911017c592 -o json
  entente federation invitations --revoke 5d41402a`,
		Args: cli.Arguments("[ID]"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			client := member.Federation()
			if len(args) > 0 && revoke != "" {
				return cli.Usagef("give an ID to show, or --revoke with the ID of one to revoke")
			}
			if revoke != "" {
				done, err := client.RevokeInvitation(ctx, &ententev1.RevokeInvitationRequest{Id: revoke})
				if err != nil {
					return err
				}
				return env.Print(done, func(t *cli.Table) { t.Otherwise("Invitation %s is revoked.", revoke) })
			}
			table := func(t *cli.Table, invitations ...*ententev1.Invitation) {
				columns := []string{"ID", "DOMAIN", "FOR", "STATE", "APPROVED", "EXPIRES", "ENDED", "BY"}
				advertised := slices.ContainsFunc(invitations, func(i *ententev1.Invitation) bool {
					return len(i.GetAdvertised()) > 0
				})
				if advertised {
					columns = append(columns, "ADVERTISED")
				}
				t.Columns(columns...)
				t.Wrap("BY", "ADVERTISED")
				for _, i := range invitations {
					cells := []any{
						i.GetId(), i.GetTrustDomain(), i.GetForeignTrustDomain(), cli.EnumName(i.GetState()),
						cli.YesNo(i.GetApproved()), cli.Time(i.GetExpireTime()), cli.Time(i.GetEndTime()),
						i.GetCreator(),
					}
					if advertised {
						cells = append(cells, strings.Join(i.GetAdvertised(), " "))
					}
					t.Row(cells...)
				}
			}
			if len(args) > 0 {
				one, err := client.GetInvitation(ctx, &ententev1.GetInvitationRequest{Id: args[0]})
				if err != nil {
					return err
				}
				return env.Print(one, func(t *cli.Table) { table(t, one) })
			}
			list, err := client.ListInvitations(ctx, &ententev1.ListInvitationsRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				table(t, list.GetInvitations()...)
				t.Otherwise("There are no invitations: 'entente federation invite' makes one.")
			})
		}),
	}
	cmd.Flags().StringVar(&revoke, "revoke", "", "revoke the open invitation with this ID")
	return cmd
}

// agreementFields adds the consent of both sides to an agreement.
func agreementFields(t *cli.Table, g *ententev1.Agreement) {
	if g == nil {
		return
	}
	role := "accepted by this side"
	if g.GetInvited() {
		role = "made by this side's invitation"
	}
	if g.GetLinkedHome() {
		role += ", along with another trust domain of the same cluster"
	}
	t.Field("agreement", fmt.Sprintf("%s for %s, %s", g.GetId(), g.GetHostedTrustDomain(), role))
	here, there := "missing: 'entente federation approve' gives it", "missing: the operator there gives it"
	if g.GetApproveTime() != nil {
		here = fmt.Sprintf("%s by %s", cli.Time(g.GetApproveTime()), g.GetApprover())
	}
	if g.GetPeerApproveTime() != nil {
		there = cli.Time(g.GetPeerApproveTime())
	}
	t.Field("approved here", here)
	t.Field("approved there", there)
	if len(g.GetAdvertised()) > 0 {
		t.Field("advertised there", strings.Join(g.GetAdvertised(), ", "))
	}
	t.Field("may change itself", "its members' keys, and URLs, addresses and web roots at "+
		strings.Join(g.GetHosts(), ", "))
	pending := slices.Concat(g.GetPendingUrls(), g.GetPendingAddresses())
	if digest := g.GetPendingWebRootsSha256(); digest != "" {
		pending = append(pending, "web roots of SHA-256 "+digest)
	}
	if len(pending) > 0 {
		t.Field("announced", strings.Join(pending, ", ")+"; not used before 'entente federation approve'")
	}
	if g.GetEndTime() != nil {
		t.Field(
			"ended there",
			cli.Time(g.GetEndTime())+"; it has no effect any longer: 'entente federation delete' removes it",
		)
	}
}
