package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// renewals is how many renewals fall into a lease: two may be lost without harm.
const renewals = 3

// lease keeps an instance registered.
type lease struct {
	client   ententev1.RoutingServiceClient
	instance *ententev1.Instance
	timeout  time.Duration // of each call
	log      io.Writer
}

// hold registers the instance, tells made of it, and renews the lease until ctx ends; then it deregisters the instance. A
// member that cannot be reached for a while is asked again; an instance that was removed meanwhile is registered again.
func (l *lease) hold(ctx context.Context, made func(*ententev1.Instance) error) error {
	registered, err := l.register(ctx)
	if err != nil {
		return err
	}
	if err := made(registered); err != nil {
		return err
	}
	tick := time.NewTicker(registered.GetTtl().AsDuration() / renewals)
	defer tick.Stop()
	troubled := false
	for {
		select {
		case <-ctx.Done():
			return l.deregister(context.WithoutCancel(ctx))
		case <-tick.C:
		}
		err := l.renew(ctx, registered.GetLeaseId())
		if status.Code(err) == codes.NotFound {
			l.say("was removed, and is registered again")
			var again *ententev1.Instance
			if again, err = l.register(ctx); err == nil {
				registered = again
			}
		}
		switch code := status.Code(err); {
		case ctx.Err() != nil:
		case code == codes.OK:
			if troubled {
				l.say("is renewed again")
			}
			troubled = false
		case code == codes.Unavailable, code == codes.DeadlineExceeded, code == codes.ResourceExhausted, code == codes.Unknown, code == codes.Internal:
			if !troubled {
				l.say("could not be renewed, and will be tried again: %s", sentence(err))
			}
			troubled = true
		default:
			return err
		}
	}
}

func (l *lease) say(format string, args ...any) {
	fmt.Fprintf(l.log, "entente: the instance of %s at %s %s\n", l.instance.GetService(), l.instance.GetAddress(), printable(fmt.Sprintf(format, args...)))
}

func (l *lease) register(ctx context.Context) (*ententev1.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	return l.client.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: l.instance})
}

func (l *lease) renew(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	_, err := l.client.RenewInstance(ctx, &ententev1.RenewInstanceRequest{Service: l.instance.GetService(), Address: l.instance.GetAddress(), LeaseId: id})
	return err
}

func (l *lease) deregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	_, err := l.client.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{Service: l.instance.GetService(), Address: l.instance.GetAddress()})
	if err != nil {
		return fmt.Errorf("deregister the instance; without renewal it is removed in %s: %w", span(l.instance.GetTtl()), err)
	}
	l.say("is deregistered")
	return nil
}
