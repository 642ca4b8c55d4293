// Package domain has the commands for hosted trust domains.
package domain

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("domain", "Hosted trust domains: those that this cluster is the authority for",
		createCommand(env), listCommand(env), showCommand(env), updateCommand(env), deleteCommand(env))
}

// domainFlags are what of a domain can be set.
type domainFlags struct {
	endpointHost, oidcIssuer                    string
	refreshHint, x509SVIDTTL, jwtSVIDTTL, caTTL time.Duration
}

func (d *domainFlags) add(f *pflag.FlagSet) {
	f.StringVar(&d.endpointHost, "endpoint-host", "", "host name of a separate bundle endpoint of the domain")
	f.StringVar(&d.oidcIssuer, "oidc-issuer", "",
		"https URL by which verifiers of OpenID Connect know the domain, the iss of its JWT-SVIDs")
	f.DurationVar(&d.refreshHint, "refresh-hint", 0, "how often readers of its bundle should poll")
	f.DurationVar(&d.x509SVIDTTL, "x509-svid-ttl", 0, "default and maximum lifetime of its X509-SVIDs")
	f.DurationVar(&d.jwtSVIDTTL, "jwt-svid-ttl", 0, "default and maximum lifetime of its JWT-SVIDs")
	f.DurationVar(&d.caTTL, "ca-ttl", 0, "lifetime of each member's signing certificate and JWT key")
}

// apply sets the fields of the given flags, and returns their names.
func (d *domainFlags) apply(f *pflag.FlagSet, to *ententev1.Domain) []string {
	var fields []string
	for _, x := range []struct {
		flag, field string
		set         func()
	}{
		{"endpoint-host", "endpoint_host", func() { to.EndpointHost = d.endpointHost }},
		{"oidc-issuer", "oidc_issuer", func() { to.OidcIssuer = d.oidcIssuer }},
		{"refresh-hint", "refresh_hint", func() { to.RefreshHint = durationpb.New(d.refreshHint) }},
		{"x509-svid-ttl", "x509_svid_ttl", func() { to.X509SvidTtl = durationpb.New(d.x509SVIDTTL) }},
		{"jwt-svid-ttl", "jwt_svid_ttl", func() { to.JwtSvidTtl = durationpb.New(d.jwtSVIDTTL) }},
		{"ca-ttl", "ca_ttl", func() { to.CaTtl = durationpb.New(d.caTTL) }},
	} {
		if f.Changed(x.flag) {
			x.set()
			fields = append(fields, x.field)
		}
	}
	return fields
}

func createCommand(env *cli.Env) *cobra.Command {
	var flags domainFlags
	cmd := &cobra.Command{
		Use:   "create DOMAIN",
		Short: "Host a trust domain, with authorities of its own",
		Args:  cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, args []string) error {
			domain := &ententev1.Domain{TrustDomain: args[0]}
			flags.apply(cmd.Flags(), domain)
			made, err := member.Domains().CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: domain})
			return printDomain(env)(made, err)
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}

func listCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the hosted trust domains",
		Args:  cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Domains().ListDomains(ctx, &ententev1.ListDomainsRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns(
					"DOMAIN", "HOME", "ENDPOINT HOST", "REFRESH HINT", "X509-SVID TTL", "JWT-SVID TTL", "CA TTL",
					"CREATED",
				)
				for _, d := range list.GetDomains() {
					t.Row(
						d.GetTrustDomain(), cli.YesNo(d.GetHome()), d.GetEndpointHost(),
						cli.Duration(d.GetRefreshHint()), cli.Duration(d.GetX509SvidTtl()),
						cli.Duration(d.GetJwtSvidTtl()), cli.Duration(d.GetCaTtl()), cli.Since(d.GetCreateTime()),
					)
				}
				t.Otherwise("No hosted trust domain is visible to you.")
			})
		}),
	}
}

func showCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show DOMAIN",
		Short: "Show a hosted trust domain",
		Args:  cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			return printDomain(env)(member.Domains().GetDomain(ctx, &ententev1.GetDomainRequest{TrustDomain: args[0]}))
		}),
	}
}

func updateCommand(env *cli.Env) *cobra.Command {
	var flags domainFlags
	cmd := &cobra.Command{
		Use:   "update DOMAIN",
		Short: "Change a hosted trust domain: only the given settings",
		Args:  cli.Arguments("DOMAIN"),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if len(flags.apply(cmd.Flags(), &ententev1.Domain{})) == 0 {
				return cli.Usagef("nothing to change: give at least one flag")
			}
			return nil
		},
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, args []string) error {
			domain := &ententev1.Domain{TrustDomain: args[0]}
			fields := flags.apply(cmd.Flags(), domain)
			return printDomain(env)(member.Domains().UpdateDomain(ctx, &ententev1.UpdateDomainRequest{
				Domain: domain, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields},
			}))
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}

func deleteCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "delete DOMAIN",
		Short: "Delete a hosted trust domain with its authorities, its bundle and its grants",
		Args:  cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Domains().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: args[0]})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { t.Otherwise("Trust domain %s is no longer hosted.", args[0]) })
		}),
	}
}

// printDomain returns a function that prints what a call returned.
func printDomain(env *cli.Env) func(*ententev1.Domain, error) error {
	return func(d *ententev1.Domain, err error) error {
		if err != nil {
			return err
		}
		return env.Print(d, func(t *cli.Table) {
			t.Field("trust domain", d.GetTrustDomain())
			t.Field("home", cli.YesNo(d.GetHome()))
			t.Field("endpoint host", d.GetEndpointHost())
			t.Field("oidc issuer", d.GetOidcIssuer())
			t.Field("refresh hint", cli.Duration(d.GetRefreshHint()))
			t.Field("x509-svid ttl", cli.Duration(d.GetX509SvidTtl()))
			t.Field("jwt-svid ttl", cli.Duration(d.GetJwtSvidTtl()))
			t.Field("ca ttl", cli.Duration(d.GetCaTtl()))
			t.Field("created", cli.Time(d.GetCreateTime()))
			t.Field("revision", d.GetRevision())
		})
	}
}
