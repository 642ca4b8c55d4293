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
	peerMinRefresh                              time.Duration
	nameConstraints, deletionProtection         bool
}

func (d *domainFlags) add(f *pflag.FlagSet) {
	f.StringVar(&d.endpointHost, "endpoint-host", "", "host name of a separate bundle endpoint of the domain")
	f.StringVar(&d.oidcIssuer, "oidc-issuer", "",
		"https URL by which verifiers of OpenID Connect know the domain, the iss of its JWT-SVIDs")
	f.DurationVar(&d.refreshHint, "refresh-hint", 0, "how often readers of its bundle should poll")
	f.DurationVar(&d.peerMinRefresh, "peer-min-refresh", 0, "interval below which no reader is expected to poll, "+
		"whatever the hint; SPIRE's is 15s")
	f.DurationVar(&d.x509SVIDTTL, "x509-svid-ttl", 0, "default and maximum lifetime of its X509-SVIDs")
	f.DurationVar(&d.jwtSVIDTTL, "jwt-svid-ttl", 0, "default and maximum lifetime of its JWT-SVIDs")
	f.DurationVar(&d.caTTL, "ca-ttl", 0, "lifetime of each member's signing certificate and JWT key")
	f.BoolVar(&d.nameConstraints, "name-constraints", false, "constrain new roots to names of the domain, not "+
		"critical; some TLS stacks refuse any URI constraint")
	f.BoolVar(&d.deletionProtection, "deletion-protection", false, "refuse the deletion of the domain")
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
		{"peer-min-refresh", "peer_min_refresh", func() { to.PeerMinRefresh = durationpb.New(d.peerMinRefresh) }},
		{"x509-svid-ttl", "x509_svid_ttl", func() { to.X509SvidTtl = durationpb.New(d.x509SVIDTTL) }},
		{"jwt-svid-ttl", "jwt_svid_ttl", func() { to.JwtSvidTtl = durationpb.New(d.jwtSVIDTTL) }},
		{"ca-ttl", "ca_ttl", func() { to.CaTtl = durationpb.New(d.caTTL) }},
		{"name-constraints", "name_constraints", func() { to.NameConstraints = d.nameConstraints }},
		{"deletion-protection", "deletion_protection", func() { to.DeletionProtection = d.deletionProtection }},
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
	var tolerant cli.IfNotExists
	cmd := &cobra.Command{
		Use:   "create DOMAIN",
		Short: "Host a trust domain, with authorities of its own",
		Long: `Host a trust domain, with authorities of its own on every member. Each member makes them within seconds;
'entente authority list DOMAIN' shows how far they are. What is not given has the defaults of the
configuration.`,
		Example: `  entente domain create payments.example.org --x509-svid-ttl 30m
  entente domain create payments.example.org --if-not-exists`,
		Args: cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, args []string) error {
			domain := &ententev1.Domain{TrustDomain: args[0]}
			fields := flags.apply(cmd.Flags(), domain)
			made, err := member.Domains().CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: domain})
			get := func() (*ententev1.Domain, error) {
				return member.Domains().GetDomain(ctx, &ententev1.GetDomainRequest{TrustDomain: args[0]})
			}
			return printDomain(env)(cli.Existing(tolerant, domain, made, err, fields, get))
		}),
	}
	flags.add(cmd.Flags())
	tolerant.Add(cmd)
	return cmd
}

func listCommand(env *cli.Env) *cobra.Command {
	var stale *bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the hosted trust domains",
		Long: `List the hosted trust domains, those for which this cluster is the authority. Foreign domains are in
'entente federation list'. Domains that the caller may not see are left out.`,
		Example: `  entente domain list`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := cli.Read(ctx, env, *stale,
				func(ctx context.Context, o *ententev1.ReadOptions) (*ententev1.ListDomainsResponse, error) {
					return member.Domains().ListDomains(ctx, &ententev1.ListDomainsRequest{Read: o})
				})
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
	stale = cli.Stale(cmd)
	return cmd
}

func showCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show DOMAIN",
		Short: "Show a hosted trust domain",
		Long: `Show a hosted trust domain with all its settings. Its bundle is in 'entente bundle show', and its signing
keys are in 'entente authority list'.`,
		Example: `  entente domain show payments.example.org`,
		Args:    cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			return printDomain(env)(member.Domains().GetDomain(ctx, &ententev1.GetDomainRequest{TrustDomain: args[0]}))
		}),
	}
}

func updateCommand(env *cli.Env) *cobra.Command {
	var flags domainFlags
	var etag *string
	cmd := &cobra.Command{
		Use:   "update DOMAIN",
		Short: "Change a hosted trust domain: only the given settings",
		Long: `Change a hosted trust domain: only the given settings. SVIDs that were issued before keep their
lifetimes.`,
		Example: `  entente domain update payments.example.org --x509-svid-ttl 1h
  entente domain update payments.example.org --deletion-protection=false`,
		Args: cli.Arguments("DOMAIN"),
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
				Domain: domain, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}, Etag: *etag,
			}))
		}),
	}
	flags.add(cmd.Flags())
	etag = cli.Etag(cmd)
	return cmd
}

func deleteCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete DOMAIN",
		Short: "Delete a hosted trust domain with its authorities, its bundle and its grants",
		Long: `Delete a hosted trust domain with its authorities, its bundle, its grants and the agreements about it,
which end at the other side too. The effect is shown first, and the command asks. One that is protected
from deletion is refused until 'entente domain update DOMAIN --deletion-protection=false'.`,
		Example: `  entente domain delete payments.example.org --dry-run
  entente domain delete payments.example.org`,
		Args: cli.Arguments("DOMAIN"),
	}
	etag := cli.Etag(cmd)
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string { return "Delete trust domain " + args[0] },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Domains().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{
				TrustDomain: args[0], Etag: *etag, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Domains().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{
				TrustDomain: args[0], Etag: *etag,
			})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { t.Otherwise("Trust domain %s is no longer hosted.", args[0]) })
		})
	return env.IfExists(cmd)
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
			t.Field("peer min refresh", cli.Duration(d.GetPeerMinRefresh()))
			t.Field("x509-svid ttl", cli.Duration(d.GetX509SvidTtl()))
			t.Field("jwt-svid ttl", cli.Duration(d.GetJwtSvidTtl()))
			t.Field("ca ttl", cli.Duration(d.GetCaTtl()))
			if d.GetNameConstraints() {
				t.Field("name constraints", cli.YesNo(true))
			}
			t.Field("deletion protection", cli.YesNo(d.GetDeletionProtection()))
			t.Field("created", cli.Time(d.GetCreateTime()))
			t.Field("revision", d.GetRevision())
		})
	}
}
