// Package access has the commands that grant, list and revoke roles.
package access

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("access", "Roles of callers", grantCommand(env), listCommand(env), showCommand(env),
		revokeCommand(env), releaseCommand(env))
}

// grantFlags are a grant without its role.
type grantFlags struct {
	id, domain, path string
	dns, mayIssue    []string
	services         []string
}

func (g *grantFlags) add(f *pflag.FlagSet) {
	f.StringVar(&g.id, "spiffe-id", "", "the SPIFFE `ID` of the caller")
	f.StringVar(&g.domain, "domain", "",
		"hosted trust domain of the grant; discovery: also a foreign one (default: every one)")
	f.StringVar(&g.path, "path", "",
		"issuer and discovery: only SPIFFE IDs whose path begins with these whole segments (default: any path)")
	f.StringArrayVar(&g.dns, "dns", nil,
		"issuer: a DNS `NAME` that X509-SVIDs may have, or .SUFFIX for all below it; can be repeated (default: none)")
	f.StringArrayVar(&g.mayIssue, "may-issue", nil,
		"issuer: a `ROLE` whose holders' SPIFFE IDs it may issue; can be repeated (default: it is refused the IDs of "+
			"admins, operators, issuers and peers)")
	f.StringArrayVar(&g.services, "service", nil,
		"discovery: a service `NAME` that the caller owns: it registers instances of no other, and instances of it "+
			"count only under IDs of its owners' grants; can be repeated (default: all services without an owner)")
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
	var mayIssue []ententev1.Role
	for _, name := range g.mayIssue {
		n, _, _ := cli.EnumValue(ententev1.Role(0).Descriptor(), name)
		mayIssue = append(mayIssue, ententev1.Role(n))
	}
	return &ententev1.Grant{
		MayIssue:    mayIssue,
		Role:        ententev1.Role(n),
		SpiffeId:    g.id,
		TrustDomain: g.domain,
		PathPrefix:  g.path,
		DnsNames:    g.dns,
		Services:    g.services,
	}
}

const roleHelp = `Roles:
  admin      everything; for one --domain: everything in it, roles in it included
  operator   domains, authorities, relationships, members; no roles
  issuer     issues SVIDs, below --path if given, with DNS names only as --dns says, and of IDs that
             have a role only as --may-issue says
  discovery  registers instances, with IDs below --path if given, and reads hints; with --service it
             owns these services, whose instances then count only under IDs of their owners' grants
  reader     reads
  peer       opens the streams of another cluster`

func grantCommand(env *cli.Env) *cobra.Command {
	var flags grantFlags
	cmd := &cobra.Command{
		Use:   "grant ROLE --spiffe-id ID",
		Short: "Grant a role to a caller",
		Long: `Grant a role to a caller, in one hosted trust domain or in all of them. It takes effect at once, and
'entente access revoke' with the same flags ends it.

` + roleHelp,
		Example: `  entente access grant reader --spiffe-id spiffe://eu.example.org/ci
  entente access grant issuer --spiffe-id spiffe://eu.example.org/ci --domain eu.example.org \
      --path /web --dns .web.example.org
  entente access grant discovery --spiffe-id spiffe://eu.example.org/plane --domain eu.example.org \
      --path /shop --service shop`,
		Args:    roleArgument,
		PreRunE: cli.Required("spiffe-id"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			made, err := member.Access().GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: flags.grant(args[0])})
			if err != nil {
				return err
			}
			for _, warning := range made.GetWarnings() {
				fmt.Fprintf(env.Stderr, "warning: %s\n", cli.Printable(warning))
			}
			return show(env, made)
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}

// show prints a grant.
func show(env *cli.Env, g *ententev1.Grant) error {
	return env.Print(g, func(t *cli.Table) {
		t.Field("role", cli.EnumName(g.GetRole()))
		t.Field("spiffe id", g.GetSpiffeId())
		t.Field("domain", everyDomain(g.GetTrustDomain()))
		t.Field("path", g.GetPathPrefix())
		t.Field("dns names", strings.Join(g.GetDnsNames(), " "))
		t.Field("more", more(g))
		t.Field("granted", cli.Time(g.GetCreateTime()))
		t.Field("revision", g.GetRevision())
	})
}

func showCommand(env *cli.Env) *cobra.Command {
	var flags grantFlags
	cmd := &cobra.Command{
		Use:   "show ROLE --spiffe-id ID",
		Short: "Show a granted role, named by the flags of the grant",
		Long: `Show a granted role. A grant is named by all its flags: give them as 'entente access list' prints them.
The etag, for 'entente access revoke --etag', is in the output as JSON or YAML.`,
		Example: `  entente access show reader --spiffe-id spiffe://eu.example.org/ci
  entente access show issuer --spiffe-id spiffe://eu.example.org/ci --domain eu.example.org -o json`,
		Args:    roleArgument,
		PreRunE: cli.Required("spiffe-id"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			of := flags.grant(args[0])
			g, err := member.Access().GetGrant(ctx, &ententev1.GetGrantRequest{
				Role: of.GetRole(), SpiffeId: of.GetSpiffeId(), TrustDomain: of.GetTrustDomain(),
				PathPrefix: of.GetPathPrefix(), DnsNames: of.GetDnsNames(), MayIssue: of.GetMayIssue(),
				Services: of.GetServices(),
			})
			if err != nil {
				return err
			}
			return show(env, g)
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}

// more returns what few grants have, as the flags that gave it.
func more(g *ententev1.Grant) string {
	var flags []string
	for _, r := range g.GetMayIssue() {
		flags = append(flags, "--may-issue "+cli.EnumName(r))
	}
	for _, service := range g.GetServices() {
		flags = append(flags, "--service "+service)
	}
	return strings.Join(flags, " ")
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
		Long: `List the granted roles, each with what limits it. Below the table are the names of services that stay
reserved after their last owner has lost its grant.`,
		Example: `  entente access list
  entente access list -o json`,
		Args: cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Access().ListGrants(ctx, &ententev1.ListGrantsRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("SPIFFE ID", "ROLE", "DOMAIN", "PATH", "DNS NAMES", "MORE", "GRANTED")
				t.Wrap("SPIFFE ID", "PATH", "DNS NAMES", "MORE")
				for _, g := range list.GetGrants() {
					t.Row(
						g.GetSpiffeId(), cli.EnumName(g.GetRole()), everyDomain(g.GetTrustDomain()),
						g.GetPathPrefix(), strings.Join(g.GetDnsNames(), " "), more(g), cli.Since(g.GetCreateTime()),
					)
				}
				t.Otherwise("No role is granted: only the admin socket gives access.")
				if reserved := list.GetReservedServices(); len(reserved) > 0 {
					t.Note = fmt.Sprintf("Services without an owner, whose names are reserved: %s.",
						strings.Join(reserved, ", "))
				}
			})
		}),
	}
}

func revokeCommand(env *cli.Env) *cobra.Command {
	var flags grantFlags
	cmd := &cobra.Command{
		Use:   "revoke ROLE --spiffe-id ID",
		Short: "Revoke a role, with the flags of the grant",
		Long: `Revoke a role. A grant is named by all its flags, so that one of several grants of a caller can end: give
them as 'entente access list' prints them. The caller loses the role at once.`,
		Example: `  entente access revoke reader --spiffe-id spiffe://eu.example.org/ci
  entente access revoke discovery --spiffe-id spiffe://eu.example.org/plane --domain eu.example.org \
      --path /shop --service shop`,
		Args:    roleArgument,
		PreRunE: cli.Required("spiffe-id"),
	}
	flags.add(cmd.Flags())
	etag := cli.Etag(cmd)
	request := func(role string, dryRun bool) *ententev1.RevokeRoleRequest {
		grant := flags.grant(role)
		return &ententev1.RevokeRoleRequest{
			Role: grant.GetRole(), SpiffeId: grant.GetSpiffeId(), TrustDomain: grant.GetTrustDomain(),
			PathPrefix: grant.GetPathPrefix(), DnsNames: grant.GetDnsNames(), MayIssue: grant.GetMayIssue(),
			Services: grant.GetServices(), Etag: *etag, DryRun: dryRun,
		}
	}
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string {
			return fmt.Sprintf("Revoke the role %s of %s in %s", args[0], flags.id, everyDomain(flags.domain))
		},
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Access().RevokeRole(ctx, request(args[0], true))
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Access().RevokeRole(ctx, request(args[0], false))
			if err != nil {
				return err
			}
			for _, warning := range done.GetWarnings() {
				fmt.Fprintf(env.Stderr, "warning: %s\n", cli.Printable(warning))
			}
			return env.Print(done, func(t *cli.Table) {
				t.Otherwise("%s no longer has the role %s in %s.", flags.id, args[0], everyDomain(flags.domain))
			})
		})
	return env.IfExists(cmd)
}

func releaseCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release SERVICE",
		Short: "Open the name of a service whose last owner is gone",
		Long: `Open the name of a service whose last owner is gone.

The name of a service that had owners stays reserved after the last of them has lost its grant: none of its
instances counts, and none can be registered. A new owner (entente access grant discovery --service SERVICE) ends
that too. After a release every caller with the role discovery can register instances of the service.`,
		Example: `  entente access release shop --dry-run`,
		Args:    cli.Arguments("SERVICE"),
	}
	cmd.RunE = env.Previews(cmd).Run(nil,
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Access().ReleaseService(ctx, &ententev1.ReleaseServiceRequest{Service: args[0], DryRun: true})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Access().ReleaseService(ctx, &ententev1.ReleaseServiceRequest{Service: args[0]})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				t.Otherwise("The name %s is open to every caller with the role discovery.", args[0])
			})
		})
	return cmd
}
