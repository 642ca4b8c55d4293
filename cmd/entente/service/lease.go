package service

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// keepInstance registers an instance under a lease, prints it, and renews the lease until ctx ends. Then it gives the
// lease up, and the instance with it.
func keepInstance(
	ctx context.Context, env *cli.Env, member *cli.Member, cfg client.LeaseConfig, instance *ententev1.Instance,
) error {
	report := func(message string, err error) {
		if err != nil {
			message += ": " + cli.Sentence(err)
		}
		fmt.Fprintf(env.Stderr, "entente: the instance of %s at %s %s\n",
			instance.GetService(), instance.GetAddress(), cli.Printable(message))
	}
	cfg.OnEvent = func(e client.Event) { report(e.Message, e.Err) }
	lease, err := client.NewLease(ctx, member, cfg, instance)
	if err != nil {
		return err
	}
	made := lease.Instances()[0]
	warn(ctx, env, member, made)
	if err := env.Print(made, instanceTable(made)); err != nil {
		return err
	}
	select {
	case <-lease.Done():
		return lease.Err()
	case <-ctx.Done():
	}
	if err := lease.Close(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf(
			"deregister the instance: it counts as unhealthy in %s without renewal, and is removed %s later: %w",
			cli.Duration(durationpb.New(cfg.TTL)), cli.Duration(durationpb.New(cfg.RemovalDelay)), err,
		)
	}
	report("is deregistered", nil)
	return nil
}
