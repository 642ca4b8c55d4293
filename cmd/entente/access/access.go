package access

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func Command(env *cli.Env) *cobra.Command {
	return cli.Group("access", "Who may do what", grantCommand(env), listCommand(env), revokeCommand(env))
}

// grantFlags, with a role, are a grant.
type grantFlags struct {
	id, domain, path string
	dns              []string
}

func (g *grantFlags) add(f *pflag.FlagSet) {
	f.StringVar(&g.id, "spiffe-id", "", "whose: a SPIFFE `ID`")
	f.StringVar(&g.domain, "domain", "", "the hosted trust domain that it is for; every one if left out")
	f.StringVar(&g.path, "path", "", "issuer and discovery: SPIFFE IDs whose path begins with these whole segments; any path if left out")
	f.StringArrayVar(&g.dns, "dns", nil, "issuer: a DNS `NAME` that X509-SVIDs may carry, or .SUFFIX for all below it; can be given again, none if left out")
}

// roleArgument takes one argument, the name of a role.
func roleArgument(cmd *cobra.Command, args []string) error {
	if err := cli.Arguments("ROLE")(cmd, args); err != nil {
		return err
	}
	if _, known, ok := cli.EnumValue(ententev1.Role(0).Descriptor(), args[0]); !ok {
		return cli.Usagef("%q is no role: there are %s", args[0], strings.Join(known, ", "))
	}
	return nil
}

// grant is the grant that a command line means.
func (g *grantFlags) grant(role string) *ententev1.Grant {
	n, _, _ := cli.EnumValue(ententev1.Role(0).Descriptor(), role)
	return &ententev1.Grant{Role: ententev1.Role(n), SpiffeId: g.id, TrustDomain: g.domain, PathPrefix: g.path, DnsNames: g.dns}
}

const roleHelp = `Roles:
  admin      everything; for one --domain: everything in it, roles in it included
  operator   domains, authorities, relationships, members; no roles
  issuer     issues SVIDs, below --path if given, and with DNS names only as --dns says
  discovery  registers instances, with IDs below --path if given, and asks for hints
  reader     reads
  peer       opens the streams of another cluster`

func grantCommand(env *cli.Env) *cobra.Command {
	var flags grantFlags
	cmd := &cobra.Command{
		Use:     "grant ROLE --spiffe-id ID",
		Short:   "Give a caller a role",
		Long:    "Give a caller a role, in one hosted trust domain or in all of them.\n\n" + roleHelp,
		Args:    roleArgument,
		PreRunE: cli.Required("spiffe-id"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			made, err := member.Access().GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: flags.grant(args[0])})
			if err != nil {
				return err
			}
			return env.Print(made, func(t *cli.Table) {
				t.Field("role", cli.EnumName(made.GetRole()))
				t.Field("spiffe id", made.GetSpiffeId())
				t.Field("domain", everyDomain(made.GetTrustDomain()))
				t.Field("path", made.GetPathPrefix())
				t.Field("dns names", strings.Join(made.GetDnsNames(), " "))
				t.Field("granted", cli.Time(made.GetCreateTime()))
				t.Field("revision", made.GetRevision())
			})
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}

func everyDomain(td string) string {
	if td == "" {
		return "every hosted domain"
	}
	return td
}

func listCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the roles that callers have",
		Args:  cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Access().ListGrants(ctx, &ententev1.ListGrantsRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("SPIFFE ID", "ROLE", "DOMAIN", "PATH", "DNS NAMES", "GRANTED")
				for _, g := range list.GetGrants() {
					t.Row(g.GetSpiffeId(), cli.EnumName(g.GetRole()), everyDomain(g.GetTrustDomain()), g.GetPathPrefix(), strings.Join(g.GetDnsNames(), " "), cli.Since(g.GetCreateTime()))
				}
				t.Otherwise("Nobody has a role: only the admin socket lets anybody in.")
			})
		}),
	}
}

func revokeCommand(env *cli.Env) *cobra.Command {
	var flags grantFlags
	cmd := &cobra.Command{
		Use:     "revoke ROLE --spiffe-id ID",
		Short:   "Take a role away, named as it was granted",
		Args:    roleArgument,
		PreRunE: cli.Required("spiffe-id"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			grant := flags.grant(args[0])
			done, err := member.Access().RevokeRole(ctx, &ententev1.RevokeRoleRequest{
				Role: grant.GetRole(), SpiffeId: grant.GetSpiffeId(), TrustDomain: grant.GetTrustDomain(), PathPrefix: grant.GetPathPrefix(), DnsNames: grant.GetDnsNames(),
			})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				t.Otherwise("%s is %s no more in %s.", flags.id, args[0], everyDomain(flags.domain))
			})
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}
