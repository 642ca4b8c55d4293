// Package service has the commands for instances of services, their leases, exports and imports.
package service

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("service", "Services and their instances",
		registerCommand(env), deregisterCommand(env), evictCommand(env), listCommand(env), showCommand(env),
		leasesCommand(env),
		exportCommand(env), unexportCommand(env), exportsCommand(env),
		importCommand(env), unimportCommand(env), importsCommand(env))
}

func registerCommand(env *cli.Env) *cobra.Command {
	var locality cli.LocalityFlag
	health := cli.EnumFlag{Of: ententev1.Health(0).Descriptor(), Number: ententev1.Health_HEALTH_HEALTHY.Number()}
	var ttl, removalDelay time.Duration
	var takeOver bool
	instance := &ententev1.Instance{}
	cmd := &cobra.Command{
		Use:   "register NAME --endpoint IP:PORT --locality REGION/ZONE[/SUB-ZONE] --spiffe-id ID",
		Short: "Register an instance of a service; with --ttl keep running and renew its lease",
		Long: `Register an instance of a service, or replace the one at the same address. An address that the lease of
another process holds is refused, with the holder named; --take-over takes it, and the holder is notified.

With --ttl the instance has a lease: the command keeps running, renews it, and deregisters the instance when it is
interrupted. When it is killed, the instance counts as unhealthy once the lease has run out, and is removed
after --removal-delay more. Without --ttl the command ends, and the instance stays until it is deregistered.`,
		Example: `  entente service register shop --endpoint 10.0.0.5:8443 --locality eu-west-1/eu-west-1a \
      --spiffe-id spiffe://eu.example.org/shop --ttl 30s`,
		Args: cli.Arguments("NAME"),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.Required("endpoint", "locality", "spiffe-id")(cmd, args); err != nil {
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
						Instance: instance, TakeOver: takeOver,
					})
					if err != nil {
						return err
					}
					warn(ctx, env, member, made)
					return env.Print(made, instanceTable(made))
				})(cmd, args)
			}
			cfg := client.LeaseConfig{
				TTL: ttl, RemovalDelay: removalDelay, CallTimeout: env.Timeout, TakeOver: takeOver,
			}
			return env.Connected(
				func(member *cli.Member) error { return keepInstance(cmd.Context(), env, member, cfg, instance) },
			)
		},
	}
	f := cmd.Flags()
	f.StringVar(&instance.Address, "endpoint", "", "where the instance is: `IP:PORT`")
	f.Var(&locality, "locality", "where the instance runs: `REGION/ZONE[/SUB-ZONE]`")
	f.StringVar(&instance.SpiffeId, "spiffe-id", "", "the `ID` that callers must expect there")
	f.Uint32Var(&instance.Weight, "weight", 1, "its share among the instances of its locality")
	f.Var(&health, "health", "healthy, degraded, unhealthy or draining")
	f.DurationVar(&ttl, "ttl", 0,
		"lease of the instance, 5s to 24h, which the command renews; without renewal for so long the instance "+
			"counts as unhealthy")
	f.DurationVar(&removalDelay, "removal-delay", 5*time.Minute,
		"how long after that the instance is removed, 0s to 168h")
	f.BoolVar(&takeOver, "take-over", false, "take the address from another lease that holds it")
	return cmd
}

// warn warns of what keeps callers away from an instance that was just registered: a locality that nothing else is in,
// and a SPIFFE ID that nobody can verify here, or another reason to leave it out of hints.
func warn(ctx context.Context, env *cli.Env, member *cli.Member, i *ententev1.Instance) {
	env.WarnOfLocality(i.GetLocality(), env.KnownLocalities(ctx, member, i.GetService(), i.GetAddress()))
	if i.GetHealth() != ententev1.Health_HEALTH_HEALTHY && i.GetHealth() != ententev1.Health_HEALTH_DEGRADED {
		return // it is left out on purpose
	}
	hint, err := member.Routing().GetHint(ctx, &ententev1.GetHintRequest{
		Service: i.GetService(), Locality: i.GetLocality(), Read: &ententev1.ReadOptions{
			Consistency: ententev1.Consistency_CONSISTENCY_STALE, MinRevision: i.GetRevision(),
		},
	})
	if err != nil {
		return // it is registered, which is what counts
	}
	for _, x := range hint.GetExcluded() {
		if x.GetAddress() == i.GetAddress() {
			fmt.Fprintf(env.Stderr, "entente: warning: no caller is sent to %s: %s\n", cli.Printable(x.GetAddress()),
				cli.Printable(x.GetReason()))
		}
	}
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

// lossOf returns a line about an instance that a lease has lost.
func lossOf(l *ententev1.Lease, i *ententev1.LostInstance) string {
	how, by := "was taken over", cmp.Or(i.GetBy(), "another caller")
	if i.GetRemoved() {
		how = "was removed"
	}
	if i.GetLease() != "" {
		by += " under lease " + i.GetLease()
	}
	return cli.Printable(fmt.Sprintf("Lost by %s: %s at %s %s by %s, %s.",
		l.GetId(), i.GetService(), i.GetAddress(), how, by, cli.Since(i.GetLoseTime())))
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
	if i.GetKept() {
		return "unhealthy (kept: lease lost)"
	}
	if i.GetLeaseExpired() {
		return "unhealthy (lease expired)"
	}
	return cli.EnumName(i.GetHealth())
}

func deregisterCommand(env *cli.Env) *cobra.Command {
	var endpoint string
	cmd := &cobra.Command{
		Use:   "deregister NAME --endpoint IP:PORT",
		Short: "Remove an instance of a service",
		Long: `Remove an instance of a service, also one that another process holds by a lease. Its holder is notified,
and callers get hints without it at once.`,
		Example: `  entente service deregister shop --endpoint 10.0.0.5:8443`,
		Args:    cli.Arguments("NAME"),
		PreRunE: cli.Required("endpoint"),
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "where the instance is: `IP:PORT`")
	etag := cli.Etag(cmd)
	cmd.RunE = env.Previews(cmd).Run(nil,
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Routing().DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
				Service: args[0], Address: endpoint, Etag: *etag, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Routing().DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
				Service: args[0], Address: endpoint, Etag: *etag,
			})
			if err != nil {
				return err
			}
			return env.Print(
				done,
				func(t *cli.Table) { t.Otherwise("The instance of %s at %s is removed.", args[0], endpoint) },
			)
		})
	return env.IfExists(cmd)
}

func evictCommand(env *cli.Env) *cobra.Command {
	var lease string
	cmd := &cobra.Command{
		Use:   "evict NAME [--lease ID]",
		Short: "Remove the instances of a service that are kept although their leases were lost",
		Long: `Remove the instances of a service that are kept although their leases were lost.

When more than routing.self_preservation percent of the leased instances of a service would be removed within a
minute, they stay, unhealthy and marked "kept: lease lost": holders that are all lost at once were rather cut off
than stopped. They count again as soon as their holders return. Evict them if they are really gone.`,
		Example: `  entente service evict shop --dry-run`,
		Args:    cli.Arguments("NAME"),
	}
	evict := func(
		ctx context.Context, member *cli.Member, args []string, dryRun bool,
	) (*ententev1.EvictInstancesResponse, error) {
		return member.Routing().EvictInstances(ctx, &ententev1.EvictInstancesRequest{
			Service: args[0], Lease: lease, DryRun: dryRun,
		})
	}
	cmd.RunE = env.Previews(cmd).Run(nil,
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return evict(ctx, member, args, true)
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := evict(ctx, member, args, false)
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				t.Otherwise("%d kept instances of %s are removed.", done.GetInstances(), args[0])
			})
		})
	cmd.Flags().StringVar(&lease, "lease", "", "only those of this lease: its `ID`")
	return cmd
}

func listCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the services",
		Long: `List the services, and how many instances each has. An instance counts as healthy if it is registered as
healthy, its lease holds, and its SPIFFE ID is covered by an owner, if the service has one.`,
		Example: `  entente service list`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Routing().ListServices(ctx, &ententev1.ListServicesRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("SERVICE", "INSTANCES", "HEALTHY", "KEPT: LEASE LOST", "LOCALITIES")
				for _, s := range list.GetServices() {
					healthy, kept, places := 0, 0, map[string]bool{}
					for _, i := range s.GetInstances() {
						places[cli.Locality(i.GetLocality())] = true
						out := i.GetLeaseExpired() || i.GetImportExpired() || i.GetDisowned()
						if i.GetHealth() == ententev1.Health_HEALTH_HEALTHY && !out {
							healthy++
						}
						if i.GetKept() {
							kept++
						}
					}
					t.Row(s.GetName(), len(s.GetInstances()), healthy, kept, len(places))
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
		Long: `Show a service and its instances: those that are registered here, and those that are imported from other
clusters. 'entente hint' shows which of them a caller uses.`,
		Example: `  entente service show shop`,
		Args:    cli.Arguments("NAME"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			s, err := member.Routing().GetService(ctx, &ententev1.GetServiceRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return env.Print(s, func(t *cli.Table) {
				t.Columns("ADDRESS", "LOCALITY", "HEALTH", "WEIGHT", "SPIFFE ID", "LEASE", "ORIGIN", "REGISTERED")
				t.Wrap("ADDRESS", "LOCALITY", "SPIFFE ID", "LEASE", "ORIGIN")
				for _, i := range s.GetInstances() {
					t.Row(
						i.GetAddress(), cli.Locality(i.GetLocality()), instanceHealth(i), i.GetWeight(),
						i.GetSpiffeId(), leaseOf(i), originOf(i), cli.Since(i.GetRegisterTime()),
					)
				}
				if slices.ContainsFunc(s.GetInstances(), (*ententev1.Instance).GetDisowned) {
					t.Note = "Instances marked as disowned are in no hint: no grant of an owner of the service " +
						"covers their SPIFFE IDs."
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
time below GONE AFTER. Instances without a lease stay until they are deregistered. Below LOST is how many instances
others took over or removed; each is listed below the table.`,
		Example: `  entente service leases`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := member.Routing().ListLeases(ctx, &ententev1.ListLeasesRequest{})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("LEASE", "STATE", "INSTANCES", "TTL", "GONE AFTER", "LOST", "TAKEN", "OWNER")
				t.Wrap("OWNER")
				var lost []string
				for _, l := range list.GetLeases() {
					state := "held"
					if l.GetExpireTime() != nil {
						state = "run out " + cli.Since(l.GetExpireTime())
					}
					if l.GetKept() > 0 {
						state = fmt.Sprintf("lost %s, %d kept", cli.Since(l.GetExpireTime()), l.GetKept())
					}
					t.Row(
						l.GetId(), state, l.GetInstances(), l.GetTtl().AsDuration(), l.GetRemovalDelay().AsDuration(),
						len(l.GetLost()), cli.Since(l.GetCreateTime()), l.GetOwner(),
					)
					for _, i := range l.GetLost() {
						lost = append(lost, lossOf(l, i))
					}
				}
				t.Otherwise("There is no lease.")
				t.Note = strings.Join(lost, "\n")
			})
		}),
	}
}
