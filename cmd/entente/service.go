package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func (a *app) serviceCommand() *cobra.Command {
	return group("service", "Services and their instances",
		a.serviceRegisterCommand(), a.serviceDeregisterCommand(), a.serviceListCommand(), a.serviceShowCommand(), a.serviceLeasesCommand(),
		a.serviceExportCommand(), a.serviceUnexportCommand(), a.serviceExportsCommand(),
		a.serviceImportCommand(), a.serviceUnimportCommand(), a.serviceImportsCommand())
}

func (a *app) serviceRegisterCommand() *cobra.Command {
	var locality localityFlag
	health := enumFlag{of: ententev1.Health(0).Descriptor(), number: ententev1.Health_HEALTH_HEALTHY.Number()}
	var ttl, goneAfter time.Duration
	instance := &ententev1.Instance{}
	cmd := &cobra.Command{
		Use:   "register NAME --address IP:PORT --locality REGION/ZONE[/SUB-ZONE] --spiffe-id ID",
		Short: "Register an instance of a service; with --ttl stay and keep its lease",
		Long: `Register an instance of a service, or replace the one at the same address.

With --ttl the instance has a lease: this command stays, renews it, and deregisters the instance when it is
interrupted. When it is killed, the instance counts as unhealthy once the lease has run out, and is removed
after --gone-after more. Without --ttl the command ends, and the instance stays until it is deregistered.

Here --address is the instance's: --socket, ENTENTE_SOCKET and ENTENTE_ADDRESS say which member to ask.`,
		Args: arguments("NAME"),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if err := required("address", "locality", "spiffe-id")(cmd, args); err != nil {
				return err
			}
			if instance.GetWeight() == 0 { // which the API takes for 1
				return usagef("--weight is 0: it has to be 1 at least; '--health draining' keeps new requests away")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			instance.Service, instance.Locality, instance.Health = args[0], locality.locality, ententev1.Health(health.number)
			if !cmd.Flags().Changed("ttl") {
				return a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
					made, err := ententev1.NewRoutingServiceClient(conn).RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: instance})
					if err != nil {
						return err
					}
					return a.print(made, instanceTable(made))
				})(cmd, args)
			}
			return a.connected(func(conn *grpc.ClientConn) error {
				l := &lease{client: ententev1.NewRoutingServiceClient(conn), instance: instance, ttl: ttl, goneAfter: goneAfter, timeout: a.flags.timeout, log: a.stderr}
				return l.hold(cmd.Context(), func(made *ententev1.Instance) error { return a.print(made, instanceTable(made)) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&instance.Address, "address", "", "where the instance is: `IP:PORT`")
	f.Var(&locality, "locality", "where it runs: `REGION/ZONE[/SUB-ZONE]`")
	f.StringVar(&instance.SpiffeId, "spiffe-id", "", "the `ID` that callers must expect there")
	f.Uint32Var(&instance.Weight, "weight", 1, "its share among the instances of its locality")
	f.Var(&health, "health", "healthy, degraded, unhealthy or draining")
	f.DurationVar(&ttl, "ttl", 0, "stay and renew; without renewal for so long the instance counts as unhealthy")
	f.DurationVar(&goneAfter, "gone-after", 5*time.Minute, "how long after that it is removed")
	return cmd
}

func instanceTable(i *ententev1.Instance) func(*table) {
	return func(t *table) {
		t.field("service", i.GetService())
		t.field("address", i.GetAddress())
		t.field("locality", place(i.GetLocality()))
		t.field("spiffe id", i.GetSpiffeId())
		t.field("weight", i.GetWeight())
		t.field("health", name(i.GetHealth()))
		t.field("lease", leaseOf(i))
		t.field("revision", i.GetRevision())
	}
}

// leaseOf names the lease of an instance.
func leaseOf(i *ententev1.Instance) string {
	if i.GetLease() == "" {
		return "none"
	}
	return i.GetLease()
}

// originOf says where an instance is registered.
func originOf(i *ententev1.Instance) string {
	switch {
	case i.GetOrigin() == "":
		return "here"
	case i.GetImportExpired():
		return i.GetOrigin() + " (import expired)"
	}
	return i.GetOrigin()
}

// instanceHealth is the health that counts.
func instanceHealth(i *ententev1.Instance) string {
	if i.GetLapsed() {
		return "unhealthy (lapsed)"
	}
	return name(i.GetHealth())
}

func (a *app) serviceDeregisterCommand() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "deregister NAME --address IP:PORT",
		Short: "Remove an instance of a service",
		Long: `Remove an instance of a service.

Here --address is the instance's: --socket, ENTENTE_SOCKET and ENTENTE_ADDRESS say which member to ask.`,
		Args:    arguments("NAME"),
		PreRunE: required("address"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			done, err := ententev1.NewRoutingServiceClient(conn).DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{Service: args[0], Address: address})
			if err != nil {
				return err
			}
			return a.print(done, func(t *table) { t.otherwise("The instance of %s at %s is removed.", args[0], address) })
		}),
	}
	cmd.Flags().StringVar(&address, "address", "", "where the instance is: `IP:PORT`")
	return cmd
}

func (a *app) serviceListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the services",
		Args:  arguments(),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
			list, err := ententev1.NewRoutingServiceClient(conn).ListServices(ctx, &ententev1.ListServicesRequest{})
			if err != nil {
				return err
			}
			return a.print(list, func(t *table) {
				t.columns("SERVICE", "INSTANCES", "HEALTHY", "LOCALITIES")
				for _, s := range list.GetServices() {
					healthy, places := 0, map[string]bool{}
					for _, i := range s.GetInstances() {
						places[place(i.GetLocality())] = true
						if i.GetHealth() == ententev1.Health_HEALTH_HEALTHY && !i.GetLapsed() && !i.GetImportExpired() {
							healthy++
						}
					}
					t.row(s.GetName(), len(s.GetInstances()), healthy, len(places))
				}
				t.otherwise("No service is registered: 'entente service register' registers an instance.")
			})
		}),
	}
}

func (a *app) serviceShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a service and its instances",
		Args:  arguments("NAME"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			s, err := ententev1.NewRoutingServiceClient(conn).GetService(ctx, &ententev1.GetServiceRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(s, func(t *table) {
				t.columns("ADDRESS", "LOCALITY", "HEALTH", "WEIGHT", "SPIFFE ID", "LEASE", "ORIGIN", "REGISTERED")
				for _, i := range s.GetInstances() {
					t.row(i.GetAddress(), place(i.GetLocality()), instanceHealth(i), i.GetWeight(), i.GetSpiffeId(), leaseOf(i), originOf(i), since(i.GetRegisterTime()))
				}
				t.otherwise("Service %s has no instance.", s.GetName())
			})
		}),
	}
}

func (a *app) serviceLeasesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "leases",
		Short: "List the leases that instances stand and fall with",
		Long: `List the leases that instances stand and fall with: who holds each, for how many instances, and whether it has run out.

A lease that was not renewed for its ttl has run out: its instances count as unhealthy, and are removed when it
stays so for the time below GONE AFTER. Instances without a lease stay until they are deregistered.`,
		Args: arguments(),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
			list, err := ententev1.NewRoutingServiceClient(conn).ListLeases(ctx, &ententev1.ListLeasesRequest{})
			if err != nil {
				return err
			}
			return a.print(list, func(t *table) {
				t.columns("LEASE", "STATE", "INSTANCES", "TTL", "GONE AFTER", "OWNER", "TAKEN")
				for _, l := range list.GetLeases() {
					state := "held"
					if l.GetLapseTime() != nil {
						state = "run out " + since(l.GetLapseTime())
					}
					t.row(l.GetId(), state, l.GetInstances(), l.GetTtl().AsDuration(), l.GetGoneAfter().AsDuration(), l.GetOwner(), since(l.GetCreateTime()))
				}
				t.otherwise("There is no lease: no control plane holds one.")
			})
		}),
	}
}
