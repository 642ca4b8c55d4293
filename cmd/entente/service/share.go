package service

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func exportCommand(env *cli.Env) *cobra.Command {
	export := &ententev1.ServiceExport{}
	var etag *string
	cmd := &cobra.Command{
		Use:   "export NAME --to DOMAIN",
		Short: "Export a service to the cluster of a foreign trust domain",
		Long: `Export a service, or some of its instances, to the cluster of a foreign trust domain, under its
own name or another.

The stream to that cluster carries its instances, with locality, weight and health, and every change; an instance
whose lease has run out is exported as unhealthy. The other cluster decides what it imports. Only instances of
hosted trust domains are exported, and never imported ones. An export of the same name to the same domain replaces
the previous one.`,
		Example: `  entente service export shop --to us.example.org
  entente service export shop --to us.example.org --as shop-eu --locality eu-west-1 --locality eu-central-1/c1a
  entente service export shop --to us.example.org --domain pay.example.org --path /shop`,
		Args:    cli.Arguments("NAME"),
		PreRunE: cli.Required("to"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			export.Service = args[0]
			made, err := member.Routing().ExportService(ctx, &ententev1.ExportServiceRequest{
				Export: export, Etag: *etag,
			})
			if err != nil {
				return err
			}
			return env.Print(made, func(t *cli.Table) {
				t.Field("service", made.GetService())
				t.Field("to", made.GetTo())
				t.Field("name there", made.GetName())
				t.Field("instances", exportedInstances(made))
				t.Field("offered now", made.GetInstances())
				t.Field("state", cli.EnumName(made.GetState()))
				t.Field("detail", made.GetDetail())
				t.Field("revision", made.GetRevision())
			})
		}),
	}
	f := cmd.Flags()
	f.StringVar(&export.To, "to", "", "the foreign trust `DOMAIN` whose cluster may import it")
	f.StringVar(&export.Name, "as", "", "the `NAME` of the service there (default: its own)")
	f.StringArrayVar(&export.Localities, "locality", nil,
		"only instances in `REGION[/ZONE[/SUB-ZONE]]`; can be repeated")
	f.StringVar(&export.TrustDomain, "domain", "", "only instances of this hosted trust `DOMAIN`")
	f.StringVar(&export.PathPrefix, "path", "", "only instances whose SPIFFE IDs lie below `/PATH`")
	etag = cli.PutEtag(cmd)
	return cmd
}

// exportedInstances describes which instances an export covers.
func exportedInstances(e *ententev1.ServiceExport) string {
	var which []string
	if len(e.GetLocalities()) > 0 {
		which = append(which, "in "+strings.Join(e.GetLocalities(), ", "))
	}
	if e.GetTrustDomain() != "" {
		which = append(which, "of "+e.GetTrustDomain())
	}
	if e.GetPathPrefix() != "" {
		which = append(which, "below "+e.GetPathPrefix())
	}
	if len(which) == 0 {
		return "all"
	}
	return strings.Join(which, ", ")
}

func unexportCommand(env *cli.Env) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "unexport NAME --to DOMAIN",
		Short: "Stop exporting a service",
		Long: `Stop exporting a service. NAME is its name in the other cluster, which removes the instances when
the stream delivers the change. Without a stream the instances expire there after its import_ttl.`,
		Example: `  entente service unexport shop-eu --to us.example.org`,
		Args:    cli.Arguments("NAME"),
		PreRunE: cli.Required("to"),
	}
	cmd.Flags().StringVar(&to, "to", "", "the foreign trust `DOMAIN`")
	etag := cli.Etag(cmd)
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string { return fmt.Sprintf("Stop exporting %s to %s", args[0], to) },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Routing().UnexportService(ctx, &ententev1.UnexportServiceRequest{
				Name: args[0], To: to, Etag: *etag, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Routing().UnexportService(ctx, &ententev1.UnexportServiceRequest{
				Name: args[0], To: to, Etag: *etag,
			})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { t.Otherwise("%s is no longer exported to %s.", args[0], to) })
		})
	return env.IfExists(cmd)
}

func exportsCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "exports",
		Short: "List the exported services",
		Long: `List the exported services, and whether the other cluster has them. One is acknowledged if the other
cluster has stored the present instances, refused if it has rejected them, and offered if it does not
import them, or has not answered since the leader changed.`,
		Example: `  entente service exports`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Routing().ListServiceExports(ctx, &ententev1.ListServiceExportsRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("SERVICE", "TO", "NAME THERE", "WHICH", "OFFERED", "STATE", "ANSWERED", "DETAIL")
				t.Wrap("WHICH", "DETAIL")
				for _, e := range list.GetExports() {
					t.Row(
						e.GetService(), e.GetTo(), e.GetName(), exportedInstances(e), e.GetInstances(),
						cli.EnumName(e.GetState()), cli.Since(e.GetAnswerTime()), e.GetDetail(),
					)
				}
				t.Otherwise("Nothing is exported: 'entente service export' exports a service to another cluster.")
			})
		}),
	}
}

func importCommand(env *cli.Env) *cobra.Command {
	wanted := &ententev1.ServiceImport{}
	var etag *string
	cmd := &cobra.Command{
		Use:   "import NAME --from DOMAIN",
		Short: "Import a service from the cluster of a foreign trust domain",
		Long: `Import the instances of a service from the cluster of a foreign trust domain, if that cluster
exports it to this one. NAME is the exported name; with --as the instances join another service here. Callers see
one service: the instances that are registered here and all imported ones, each with the locality and health of its
origin.

The SPIFFE IDs of all instances must be in DOMAIN; a set with any other ID is rejected as a whole, and so is a set
with an instance that could not be registered here. If the stream to the other cluster is down for longer than
routing.import_ttl, the instances are left out of hints until it reconnects; if the relationship is suspended, at
once.`,
		Example: `  entente service import shop --from us.example.org
  entente service import shop-eu --from eu.example.org --as shop`,
		Args:    cli.Arguments("NAME"),
		PreRunE: cli.Required("from"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			wanted.Name = args[0]
			made, err := member.Routing().ImportService(ctx, &ententev1.ImportServiceRequest{
				Import: wanted, Etag: *etag,
			})
			if err != nil {
				return err
			}
			return env.Print(made, func(t *cli.Table) {
				t.Field("service", made.GetService())
				t.Field("from", made.GetFrom())
				t.Field("name there", made.GetName())
				t.Field("state", cli.EnumName(made.GetState()))
				t.Field("instances", made.GetInstances())
				t.Field("detail", made.GetDetail())
				t.Field("revision", made.GetRevision())
			})
		}),
	}
	f := cmd.Flags()
	f.StringVar(&wanted.From, "from", "", "the foreign trust `DOMAIN` in which the instances are")
	f.StringVar(&wanted.Service, "as", "", "the `SERVICE` here that the instances join (default: NAME)")
	etag = cli.PutEtag(cmd)
	return cmd
}

func unimportCommand(env *cli.Env) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "unimport SERVICE --from DOMAIN",
		Short: "End an import, and remove its instances at once",
		Long: `End an import, and remove its instances at once. SERVICE is the one here. What is registered here, and
what is imported from other domains, stays.`,
		Example: `  entente service unimport shop --from us.example.org`,
		Args:    cli.Arguments("SERVICE"),
		PreRunE: cli.Required("from"),
	}
	cmd.Flags().StringVar(&from, "from", "", "the foreign trust `DOMAIN`")
	etag := cli.Etag(cmd)
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string { return fmt.Sprintf("End the import of %s from %s", args[0], from) },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Routing().UnimportService(ctx, &ententev1.UnimportServiceRequest{
				Service: args[0], From: from, Etag: *etag, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Routing().UnimportService(ctx, &ententev1.UnimportServiceRequest{
				Service: args[0], From: from, Etag: *etag,
			})
			if err != nil {
				return err
			}
			return env.Print(
				done,
				func(t *cli.Table) { t.Otherwise("Nothing is imported into %s from %s any longer.", args[0], from) },
			)
		})
	return env.IfExists(cmd)
}

func importsCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "imports",
		Short: "List the imported services",
		Long: `List the imported services, with what came for each. A set that is refused changes nothing: what was
stored before stays, and REFUSED names the reason.`,
		Example: `  entente service imports`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Routing().ListServiceImports(ctx, &ententev1.ListServiceImportsRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("SERVICE", "FROM", "NAME THERE", "STATE", "INSTANCES", "CHANGED", "REFUSED", "DETAIL")
				t.Wrap("REFUSED", "DETAIL")
				for _, i := range list.GetImports() {
					t.Row(
						i.GetService(), i.GetFrom(), i.GetName(), cli.EnumName(i.GetState()), i.GetInstances(),
						cli.Since(i.GetChangeTime()), i.GetRefusal(), i.GetDetail(),
					)
				}
				t.Otherwise("Nothing is imported: 'entente service import' imports a service from another cluster.")
			})
		}),
	}
}
