package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func (a *app) accessCommand() *cobra.Command {
	return group("access", "Who may do what", a.accessGrantCommand(), a.accessListCommand(), a.accessRevokeCommand())
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
	if err := arguments("ROLE")(cmd, args); err != nil {
		return err
	}
	if _, known, ok := valueNamed(ententev1.Role(0).Descriptor(), args[0]); !ok {
		return usagef("%q is no role: there are %s", args[0], strings.Join(known, ", "))
	}
	return nil
}

// grant is the grant that a command line means.
func (g *grantFlags) grant(role string) *ententev1.Grant {
	n, _, _ := valueNamed(ententev1.Role(0).Descriptor(), role)
	return &ententev1.Grant{Role: ententev1.Role(n), SpiffeId: g.id, TrustDomain: g.domain, PathPrefix: g.path, DnsNames: g.dns}
}

const roleHelp = `Roles:
  admin      everything; for one --domain: everything in it, roles in it included
  operator   domains, authorities, relationships, members; no roles
  issuer     issues SVIDs, below --path if given, and with DNS names only as --dns says
  discovery  registers instances, with IDs below --path if given, and asks for hints
  reader     reads
  peer       opens the streams of another cluster`

func (a *app) accessGrantCommand() *cobra.Command {
	var flags grantFlags
	cmd := &cobra.Command{
		Use:     "grant ROLE --spiffe-id ID",
		Short:   "Give a caller a role",
		Long:    "Give a caller a role, in one hosted trust domain or in all of them.\n\n" + roleHelp,
		Args:    roleArgument,
		PreRunE: required("spiffe-id"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			made, err := ententev1.NewAccessServiceClient(conn).GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: flags.grant(args[0])})
			if err != nil {
				return err
			}
			return a.print(made, func(t *table) {
				t.field("role", name(made.GetRole()))
				t.field("spiffe id", made.GetSpiffeId())
				t.field("domain", everyDomain(made.GetTrustDomain()))
				t.field("path", made.GetPathPrefix())
				t.field("dns names", strings.Join(made.GetDnsNames(), " "))
				t.field("granted", exact(made.GetCreateTime()))
				t.field("revision", made.GetRevision())
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

func (a *app) accessListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the roles that callers have",
		Args:  arguments(),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
			list, err := ententev1.NewAccessServiceClient(conn).ListGrants(ctx, &ententev1.ListGrantsRequest{})
			if err != nil {
				return err
			}
			return a.print(list, func(t *table) {
				t.columns("SPIFFE ID", "ROLE", "DOMAIN", "PATH", "DNS NAMES", "GRANTED")
				for _, g := range list.GetGrants() {
					t.row(g.GetSpiffeId(), name(g.GetRole()), everyDomain(g.GetTrustDomain()), g.GetPathPrefix(), strings.Join(g.GetDnsNames(), " "), since(g.GetCreateTime()))
				}
				t.otherwise("Nobody has a role: only the admin socket lets anybody in.")
			})
		}),
	}
}

func (a *app) accessRevokeCommand() *cobra.Command {
	var flags grantFlags
	cmd := &cobra.Command{
		Use:     "revoke ROLE --spiffe-id ID",
		Short:   "Take a role away, named as it was granted",
		Args:    roleArgument,
		PreRunE: required("spiffe-id"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			grant := flags.grant(args[0])
			done, err := ententev1.NewAccessServiceClient(conn).RevokeRole(ctx, &ententev1.RevokeRoleRequest{
				Role: grant.GetRole(), SpiffeId: grant.GetSpiffeId(), TrustDomain: grant.GetTrustDomain(), PathPrefix: grant.GetPathPrefix(), DnsNames: grant.GetDnsNames(),
			})
			if err != nil {
				return err
			}
			return a.print(done, func(t *table) { t.otherwise("%s is %s no more in %s.", flags.id, args[0], everyDomain(flags.domain)) })
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}
