// Package service has the commands for instances of services, their leases, exports and imports.
package service

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("service", "Services and their instances",
		registerCommand(env), deregisterCommand(env), listCommand(env), showCommand(env), leasesCommand(env),
		exportCommand(env), unexportCommand(env), exportsCommand(env),
		importCommand(env), unimportCommand(env), importsCommand(env))
}

func registerCommand(env *cli.Env) *cobra.Command {
	var locality cli.LocalityFlag
	health := cli.EnumFlag{Of: ententev1.Health(0).Descriptor(), Number: ententev1.Health_HEALTH_HEALTHY.Number()}
	var ttl, goneAfter time.Duration
	instance := &ententev1.Instance{}
	cmd := &cobra.Command{
		Use:   "register NAME --address IP:PORT --locality REGION/ZONE[/SUB-ZONE] --spiffe-id ID",
		Short: "Register an instance of a service; with --ttl keep running and renew its lease",
		Long: `Register an instance of a service, or replace the one at the same address.

With --ttl the instance has a lease: the command keeps running, renews it, and deregisters the instance when it is
interrupted. When it is killed, the instance counts as unhealthy once the lease has run out, and is removed
after --gone-after more. Without --ttl the command ends, and the instance stays until it is deregistered.

Here --address is the instance's: --socket, ENTENTE_SOCKET and ENTENTE_ADDRESS name the member.`,
		Args: cli.Arguments("NAME"),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.Required("address", "locality", "spiffe-id")(cmd, args); err != nil {
				return err
			}
			if instance.GetWeight() == 0 { // which the API takes for 1
				return cli.Usagef("--weight is 0: it must be at least 1; '--health draining' keeps new requests away")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			instance.Service, instance.Locality, instance.Health = args[0], locality.Value, ententev1.Health(
				health.Number,
			)
			if !cmd.Flags().Changed("ttl") {
				return env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
					made, err := member.Routing().RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{
						Instance: instance,
					})
					if err != nil {
						return err
					}
					return env.Print(made, instanceTable(made))
				})(cmd, args)
			}
			cfg := client.LeaseConfig{TTL: ttl, GoneAfter: goneAfter, CallTimeout: env.Timeout}
			return env.Connected(
				func(member *cli.Member) error { return keepInstance(cmd.Context(), env, member, cfg, instance) },
			)
		},
	}
	f := cmd.Flags()
	f.StringVar(&instance.Address, "address", "", "where the instance is: `IP:PORT`")
	f.Var(&locality, "locality", "where the instance runs: `REGION/ZONE[/SUB-ZONE]`")
	f.StringVar(&instance.SpiffeId, "spiffe-id", "", "the `ID` that callers must expect there")
	f.Uint32Var(&instance.Weight, "weight", 1, "its share among the instances of its locality")
	f.Var(&health, "health", "healthy, degraded, unhealthy or draining")
	f.DurationVar(&ttl, "ttl", 0,
		"lease of the instance, which the command renews; without renewal for so long the instance counts as unhealthy")
	f.DurationVar(&goneAfter, "gone-after", 5*time.Minute, "how long after that the instance is removed")
	return cmd
}

func instanceTable(i *ententev1.Instance) func(*cli.Table) {
	return func(t *cli.Table) {
		t.Field("service", i.GetService())
		t.Field("address", i.GetAddress())
		t.Field("locality", cli.Locality(i.GetLocality()))
		t.Field("spiffe id", i.GetSpiffeId())
		t.Field("weight", i.GetWeight())
		t.Field("health", cli.EnumName(i.GetHealth()))
		t.Field("lease", leaseOf(i))
		t.Field("revision", i.GetRevision())
	}
}

// leaseOf returns the lease of an instance, or "none".
func leaseOf(i *ententev1.Instance) string {
	if i.GetLease() == "" {
		return "none"
	}
	return i.GetLease()
}

// originOf returns where an instance is registered.
func originOf(i *ententev1.Instance) string {
	switch {
	case i.GetOrigin() == "":
		return "here"
	case i.GetImportExpired():
		return i.GetOrigin() + " (import expired)"
	}
	return i.GetOrigin()
}

// instanceHealth returns the effective health.
func instanceHealth(i *ententev1.Instance) string {
	if i.GetLapsed() {
		return "unhealthy (lapsed)"
	}
	return cli.EnumName(i.GetHealth())
}

func deregisterCommand(env *cli.Env) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "deregister NAME --address IP:PORT",
		Short: "Remove an instance of a service",
		Long: `Remove an instance of a service.

Here --address is the instance's: --socket, ENTENTE_SOCKET and ENTENTE_ADDRESS name the member.`,
		Args:    cli.Arguments("NAME"),
		PreRunE: cli.Required("address"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Routing().DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
				Service: args[0], Address: address,
			})
			if err != nil {
				return err
			}
			return env.Print(
				done,
				func(t *cli.Table) { t.Otherwise("The instance of %s at %s is removed.", args[0], address) },
			)
		}),
	}
	cmd.Flags().StringVar(&address, "address", "", "where the instance is: `IP:PORT`")
	return cmd
}

func listCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the services",
		Args:  cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Routing().ListServices(ctx, &ententev1.ListServicesRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("SERVICE", "INSTANCES", "HEALTHY", "LOCALITIES")
				for _, s := range list.GetServices() {
					healthy, places := 0, map[string]bool{}
					for _, i := range s.GetInstances() {
						places[cli.Locality(i.GetLocality())] = true
						if i.GetHealth() == ententev1.Health_HEALTH_HEALTHY && !i.GetLapsed() && !i.GetImportExpired() {
							healthy++
						}
					}
					t.Row(s.GetName(), len(s.GetInstances()), healthy, len(places))
				}
				t.Otherwise("No service is registered: 'entente service register' registers an instance.")
			})
		}),
	}
}

func showCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a service and its instances",
		Args:  cli.Arguments("NAME"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			s, err := member.Routing().GetService(ctx, &ententev1.GetServiceRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return env.Print(s, func(t *cli.Table) {
				t.Columns("ADDRESS", "LOCALITY", "HEALTH", "WEIGHT", "SPIFFE ID", "LEASE", "ORIGIN", "REGISTERED")
				for _, i := range s.GetInstances() {
					t.Row(
						i.GetAddress(), cli.Locality(i.GetLocality()), instanceHealth(i), i.GetWeight(),
						i.GetSpiffeId(), leaseOf(i), originOf(i), cli.Since(i.GetRegisterTime()),
					)
				}
				t.Otherwise("Service %s has no instance.", s.GetName())
			})
		}),
	}
}

func leasesCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "leases",
		Short: "List the leases of instances",
		Long: `List the leases of instances: the owner of each, the number of its instances, and whether it has
run out.

A lease that was not renewed for its ttl has run out: its instances count as unhealthy, and are removed after the
time below GONE AFTER. Instances without a lease stay until they are deregistered.`,
		Args: cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Routing().ListLeases(ctx, &ententev1.ListLeasesRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("LEASE", "STATE", "INSTANCES", "TTL", "GONE AFTER", "OWNER", "TAKEN")
				for _, l := range list.GetLeases() {
					state := "held"
					if l.GetLapseTime() != nil {
						state = "run out " + cli.Since(l.GetLapseTime())
					}
					t.Row(
						l.GetId(), state, l.GetInstances(), l.GetTtl().AsDuration(), l.GetGoneAfter().AsDuration(),
						l.GetOwner(), cli.Since(l.GetCreateTime()),
					)
				}
				t.Otherwise("There is no lease.")
			})
		}),
	}
}
