package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func (a *app) domainCommand() *cobra.Command {
	return group("domain", "Hosted trust domains: those that this cluster is the authority for",
		a.domainCreateCommand(), a.domainListCommand(), a.domainShowCommand(), a.domainUpdateCommand(), a.domainDeleteCommand())
}

// domainFlags are what of a domain can be set.
type domainFlags struct {
	endpointHost, oidcIssuer                    string
	refreshHint, x509SVIDTTL, jwtSVIDTTL, caTTL time.Duration
}

func (d *domainFlags) add(f *pflag.FlagSet) {
	f.StringVar(&d.endpointHost, "endpoint-host", "", "host name of a bundle endpoint of its own")
	f.StringVar(&d.oidcIssuer, "oidc-issuer", "", "https URL by which verifiers of OpenID Connect know the domain, the iss of its JWT-SVIDs")
	f.DurationVar(&d.refreshHint, "refresh-hint", 0, "how often readers of its bundle should poll")
	f.DurationVar(&d.x509SVIDTTL, "x509-svid-ttl", 0, "longest and usual lifetime of its X509-SVIDs")
	f.DurationVar(&d.jwtSVIDTTL, "jwt-svid-ttl", 0, "longest and usual lifetime of its JWT-SVIDs")
	f.DurationVar(&d.caTTL, "ca-ttl", 0, "lifetime of each member's signing certificate and JWT key")
}

// take puts into the domain what was given, and returns the names of those fields.
func (d *domainFlags) take(f *pflag.FlagSet, to *ententev1.Domain) []string {
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

func (a *app) domainCreateCommand() *cobra.Command {
	var flags domainFlags
	cmd := &cobra.Command{
		Use:   "create DOMAIN",
		Short: "Host a trust domain, with authorities of its own",
		Args:  arguments("DOMAIN"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, cmd *cobra.Command, args []string) error {
			domain := &ententev1.Domain{TrustDomain: args[0]}
			flags.take(cmd.Flags(), domain)
			made, err := ententev1.NewDomainServiceClient(conn).CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: domain})
			return a.printDomain(made, err)
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}

func (a *app) domainListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the hosted trust domains",
		Args:  arguments(),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
			list, err := ententev1.NewDomainServiceClient(conn).ListDomains(ctx, &ententev1.ListDomainsRequest{})
			if err != nil {
				return err
			}
			return a.print(list, func(t *table) {
				t.columns("DOMAIN", "HOME", "ENDPOINT HOST", "REFRESH HINT", "X509-SVID TTL", "JWT-SVID TTL", "CA TTL", "CREATED")
				for _, d := range list.GetDomains() {
					t.row(d.GetTrustDomain(), yes(d.GetHome()), d.GetEndpointHost(), span(d.GetRefreshHint()), span(d.GetX509SvidTtl()), span(d.GetJwtSvidTtl()), span(d.GetCaTtl()), since(d.GetCreateTime()))
				}
				t.otherwise("There is no hosted trust domain that you may see.")
			})
		}),
	}
}

func (a *app) domainShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show DOMAIN",
		Short: "Show a hosted trust domain",
		Args:  arguments("DOMAIN"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			return a.printDomain(ententev1.NewDomainServiceClient(conn).GetDomain(ctx, &ententev1.GetDomainRequest{TrustDomain: args[0]}))
		}),
	}
}

func (a *app) domainUpdateCommand() *cobra.Command {
	var flags domainFlags
	cmd := &cobra.Command{
		Use:   "update DOMAIN",
		Short: "Change a hosted trust domain: what is given, and nothing else",
		Args:  arguments("DOMAIN"),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if len(flags.take(cmd.Flags(), &ententev1.Domain{})) == 0 {
				return usagef("nothing is to be changed: give at least one of the flags")
			}
			return nil
		},
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, cmd *cobra.Command, args []string) error {
			domain := &ententev1.Domain{TrustDomain: args[0]}
			fields := flags.take(cmd.Flags(), domain)
			return a.printDomain(ententev1.NewDomainServiceClient(conn).UpdateDomain(ctx, &ententev1.UpdateDomainRequest{
				Domain: domain, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields},
			}))
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}

func (a *app) domainDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete DOMAIN",
		Short: "End a hosted trust domain: its authorities, its bundle and its grants",
		Args:  arguments("DOMAIN"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			done, err := ententev1.NewDomainServiceClient(conn).DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: args[0]})
			if err != nil {
				return err
			}
			return a.print(done, func(t *table) { t.otherwise("Trust domain %s is hosted no more.", args[0]) })
		}),
	}
}

func (a *app) printDomain(d *ententev1.Domain, err error) error {
	if err != nil {
		return err
	}
	return a.print(d, func(t *table) {
		t.field("trust domain", d.GetTrustDomain())
		t.field("home", yes(d.GetHome()))
		t.field("endpoint host", d.GetEndpointHost())
		t.field("oidc issuer", d.GetOidcIssuer())
		t.field("refresh hint", span(d.GetRefreshHint()))
		t.field("x509-svid ttl", span(d.GetX509SvidTtl()))
		t.field("jwt-svid ttl", span(d.GetJwtSvidTtl()))
		t.field("ca ttl", span(d.GetCaTtl()))
		t.field("created", exact(d.GetCreateTime()))
		t.field("revision", d.GetRevision())
	})
}
