package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// renewals is how many renewals fall into a lease: two may be lost without harm.
const renewals = 3

// lease keeps an instance registered.
type lease struct {
	client         ententev1.RoutingServiceClient
	instance       *ententev1.Instance
	ttl, goneAfter time.Duration
	timeout        time.Duration // of each call, and of each answer on the stream
	log            io.Writer

	secret string
	stream ententev1.RoutingService_HoldLeaseClient // nil: none is open
	cancel context.CancelFunc
}

// hold takes a lease, registers the instance under it, tells made of it, and renews the lease until ctx ends; then it gives the
// lease up, and the instance with it. A member that cannot be reached for a while is asked again; an instance that was removed
// meanwhile is registered again.
func (l *lease) hold(ctx context.Context, made func(*ententev1.Instance) error) error {
	// The stream outlives the interruption, so that the lease can be given up on it.
	streaming, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	if err := l.open(streaming); err != nil {
		return err
	}
	registered, err := l.register(streaming)
	if err != nil {
		return err
	}
	if err := made(registered); err != nil {
		return err
	}
	tick := time.NewTicker(l.ttl / renewals)
	defer tick.Stop()
	troubled := false
	for {
		select {
		case <-ctx.Done():
			return l.release(streaming)
		case <-tick.C:
		}
		err := l.renew(streaming)
		switch status.Code(err) {
		case codes.OK:
			if troubled {
				l.say("is renewed again")
			}
			troubled = false
		case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Unknown, codes.Internal, codes.Canceled:
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

// open opens a stream on which the lease is taken, or taken up again.
func (l *lease) open(ctx context.Context) error {
	ctx, l.cancel = context.WithCancel(ctx)
	var err error
	if l.stream, err = l.client.HoldLease(ctx); err != nil {
		l.drop()
		return err
	}
	answer, err := l.ask(&ententev1.HoldLeaseRequest{Open: &ententev1.OpenLease{
		Ttl: durationpb.New(l.ttl), GoneAfter: durationpb.New(l.goneAfter), Secret: l.secret,
	}})
	if err != nil {
		return err
	}
	l.secret = answer.GetSecret()
	return nil
}

// ask sends a message and waits for its answer. After an error there is no stream any more.
func (l *lease) ask(m *ententev1.HoldLeaseRequest) (*ententev1.HoldLeaseResponse, error) {
	late := time.AfterFunc(l.timeout, l.cancel)
	defer late.Stop()
	// What ended the stream is in what it receives.
	sent := l.stream.Send(m)
	answer, err := l.stream.Recv()
	if err == nil {
		err = sent
	}
	if err != nil {
		l.drop()
		return nil, err
	}
	return answer, nil
}

func (l *lease) drop() {
	l.cancel()
	l.stream = nil
}

// renew renews the lease, on a new stream if need be. A lease that is gone is taken anew, and the instance registered again.
func (l *lease) renew(ctx context.Context) error {
	var err error
	if l.stream != nil {
		if _, err = l.ask(&ententev1.HoldLeaseRequest{}); err == nil {
			return nil
		}
	}
	if status.Code(err) != codes.NotFound {
		if err = l.open(ctx); status.Code(err) != codes.NotFound {
			return err
		}
	}
	l.say("was removed, and is registered again")
	l.secret = ""
	if err := l.open(ctx); err != nil {
		return err
	}
	_, err = l.register(ctx)
	return err
}

func (l *lease) register(ctx context.Context) (*ententev1.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	l.instance.Lease = l.secret
	return l.client.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: l.instance})
}

// release gives the lease up.
func (l *lease) release(ctx context.Context) error {
	var err error
	if l.stream == nil {
		err = l.open(ctx)
	}
	if err == nil {
		_, err = l.ask(&ententev1.HoldLeaseRequest{Release: true})
	}
	if err != nil {
		return fmt.Errorf("deregister the instance; without renewal it counts as unhealthy in %s, and is removed %s later: %w", span(durationpb.New(l.ttl)), span(durationpb.New(l.goneAfter)), err)
	}
	l.say("is deregistered")
	return nil
}
