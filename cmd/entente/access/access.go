// Package access has the commands that grant, list and revoke roles.
package access

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("access", "Roles of callers", grantCommand(env), listCommand(env), revokeCommand(env))
}

// grantFlags are a grant without its role.
type grantFlags struct {
	id, domain, path string
	dns              []string
}

func (g *grantFlags) add(f *pflag.FlagSet) {
	f.StringVar(&g.id, "spiffe-id", "", "the SPIFFE `ID` of the caller")
	f.StringVar(&g.domain, "domain", "", "hosted trust domain of the grant (default: every one)")
	f.StringVar(&g.path, "path", "",
		"issuer and discovery: only SPIFFE IDs whose path begins with these whole segments (default: any path)")
	f.StringArrayVar(&g.dns, "dns", nil,
		"issuer: a DNS `NAME` that X509-SVIDs may have, or .SUFFIX for all below it; can be repeated (default: none)")
}

// roleArgument accepts one argument, the name of a role.
func roleArgument(cmd *cobra.Command, args []string) error {
	if err := cli.Arguments("ROLE")(cmd, args); err != nil {
		return err
	}
	if _, known, ok := cli.EnumValue(ententev1.Role(0).Descriptor(), args[0]); !ok {
		return cli.Usagef("%q is not a role: there are %s", args[0], strings.Join(known, ", "))
	}
	return nil
}

// grant returns the grant that the flags describe.
func (g *grantFlags) grant(role string) *ententev1.Grant {
	n, _, _ := cli.EnumValue(ententev1.Role(0).Descriptor(), role)
	return &ententev1.Grant{
		Role:        ententev1.Role(n),
		SpiffeId:    g.id,
		TrustDomain: g.domain,
		PathPrefix:  g.path,
		DnsNames:    g.dns,
	}
}

const roleHelp = `Roles:
  admin      everything; for one --domain: everything in it, roles in it included
  operator   domains, authorities, relationships, members; no roles
  issuer     issues SVIDs, below --path if given, and with DNS names only as --dns says
  discovery  registers instances, with IDs below --path if given, and reads hints
  reader     reads
  peer       opens the streams of another cluster`

func grantCommand(env *cli.Env) *cobra.Command {
	var flags grantFlags
	cmd := &cobra.Command{
		Use:     "grant ROLE --spiffe-id ID",
		Short:   "Grant a role to a caller",
		Long:    "Grant a role to a caller, in one hosted trust domain or in all of them.\n\n" + roleHelp,
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
		Short: "List the granted roles",
		Args:  cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Access().ListGrants(ctx, &ententev1.ListGrantsRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("SPIFFE ID", "ROLE", "DOMAIN", "PATH", "DNS NAMES", "GRANTED")
				for _, g := range list.GetGrants() {
					t.Row(
						g.GetSpiffeId(), cli.EnumName(g.GetRole()), everyDomain(g.GetTrustDomain()),
						g.GetPathPrefix(), strings.Join(g.GetDnsNames(), " "), cli.Since(g.GetCreateTime()),
					)
				}
				t.Otherwise("No role is granted: only the admin socket gives access.")
			})
		}),
	}
}

func revokeCommand(env *cli.Env) *cobra.Command {
	var flags grantFlags
	cmd := &cobra.Command{
		Use:     "revoke ROLE --spiffe-id ID",
		Short:   "Revoke a role, with the flags of the grant",
		Args:    roleArgument,
		PreRunE: cli.Required("spiffe-id"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			grant := flags.grant(args[0])
			done, err := member.Access().RevokeRole(ctx, &ententev1.RevokeRoleRequest{
				Role: grant.GetRole(), SpiffeId: grant.GetSpiffeId(), TrustDomain: grant.GetTrustDomain(),
				PathPrefix: grant.GetPathPrefix(), DnsNames: grant.GetDnsNames(),
			})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				t.Otherwise("%s no longer has the role %s in %s.", flags.id, args[0], everyDomain(flags.domain))
			})
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}
