package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

const (
	// renewalsPerLease is how many renewals fall into the TTL of a lease: two can fail without harm.
	renewalsPerLease = 3
	// maxRenewalInterval bounds how late a holder receives that others took its instances, which the answer to a
	// renewal has.
	maxRenewalInterval = 10 * time.Second
)

// ErrLeaseLost means that other callers took over or removed every instance of a lease, which is not renewed any more.
var ErrLeaseLost = errors.New("no instance of the lease is left")

// LeaseConfig configures a [Lease].
type LeaseConfig struct {
	// TTL is how long the lease lasts without renewal. Then its instances count as unhealthy. It is required.
	TTL time.Duration
	// RemovalDelay is how long after that the instances are removed. If zero, the default of the cluster applies.
	RemovalDelay time.Duration
	// TakeOver takes the addresses of the instances from other leases at the first registration. Without it, NewLease
	// returns [ErrFailedPrecondition] if another lease holds one of them. Registrations after an outage take nothing.
	TakeOver bool
	// CallTimeout bounds each call, and each answer on the stream. If zero, it is 10 seconds.
	CallTimeout time.Duration
	// OnEvent is called for each event, from one goroutine at a time. It must not block.
	OnEvent func(Event)
}

// Lease keeps instances registered for as long as this process runs: it renews their lease, and registers them again if
// they were removed during an outage.
type Lease struct {
	cfg     LeaseConfig
	routing ententev1.RoutingServiceClient
	ctx     context.Context //nolint:containedctx // the stream outlives the context of NewLease
	cancel  context.CancelFunc
	changes chan leaseChange
	stop    chan struct{}
	done    chan struct{}
	err     error // set before done is closed

	registered []*ententev1.Instance // as NewLease registered them

	// What follows belongs to the goroutine that renews.
	instances []*ententev1.Instance // those that the lease has not lost
	secret    string
	stream    ententev1.RoutingService_KeepLeaseClient // nil if none is open
	drop      context.CancelFunc                       // ends the stream
	failing   bool                                     // the last renewal failed, which was reported
	lost      error                                    // set once no instance is left
}

type leaseChange struct {
	change *ententev1.HealthChange
	result chan<- error
}

// NewLease takes a lease, registers the instances under it and renews it until it is closed. The lease of the instances
// is set by NewLease; they belong to the lease from then on. An error means that nothing was registered for longer than
// TTL and RemovalDelay. The end of ctx does not affect the lease after NewLease returned.
func NewLease(ctx context.Context, c *Client, cfg LeaseConfig, instances ...*ententev1.Instance) (*Lease, error) {
	return newLease(ctx, c.Routing(), cfg, instances...)
}

func newLease(
	ctx context.Context, routing ententev1.RoutingServiceClient, cfg LeaseConfig, instances ...*ententev1.Instance,
) (*Lease, error) {
	if cfg.TTL <= 0 {
		return nil, errors.New("the TTL of the lease must be above zero")
	}
	if cfg.CallTimeout == 0 {
		cfg.CallTimeout = defaultCallTimeout
	}
	cfg.OnEvent = serialized(cfg.OnEvent)
	l := &Lease{
		cfg: cfg, routing: routing, instances: instances,
		changes: make(chan leaseChange), stop: make(chan struct{}, 1), done: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, l.cancel)
	err := l.open()
	if err == nil {
		l.registered, err = l.register()
	}
	if stop(); err == nil && l.ctx.Err() != nil {
		err = ctx.Err() // it ended in the same moment, and the stream with it
	}
	if err != nil {
		l.cancel()
		return nil, err
	}
	go l.run()
	return l, nil
}

// Instances returns the instances as they were registered first, with the ID of the lease.
func (l *Lease) Instances() []*ententev1.Instance { return l.registered }

// Done returns a channel that is closed when the lease is no longer renewed: after Close, or after an error that does
// not go away by itself.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Err returns why the lease is no longer renewed, once Done is closed. It returns nil after Close.
func (l *Lease) Err() error {
	select {
	case <-l.done:
		return l.err
	default:
		return nil
	}
}

// SetHealth changes the health of one instance of the lease. It returns the error of the member if the change is
// rejected. A later registration after an outage uses the new health as well.
func (l *Lease) SetHealth(ctx context.Context, service, address string, health ententev1.Health) error {
	result := make(chan error, 1)
	change := &ententev1.HealthChange{Service: service, Address: address, Health: health}
	select {
	case l.changes <- leaseChange{change, result}:
	case <-l.done:
		return l.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Lease) ended() error {
	if l.err != nil {
		return fmt.Errorf("the lease has ended: %w", l.err)
	}
	return errors.New("the lease is closed")
}

// Close ends the renewal and gives the lease up, with which its instances are removed. An error means that the
// instances stay until the lease runs out. If ctx has ended, or ends first, Close does not give the lease up and
// returns the error of ctx.
func (l *Lease) Close(ctx context.Context) error {
	select {
	case <-l.done: // closed already, or ended with an error
		return nil
	default:
	}
	if ctx.Err() != nil {
		l.cancel()
	}
	stop := context.AfterFunc(ctx, l.cancel)
	defer stop()
	select {
	case l.stop <- struct{}{}:
	case <-l.done:
	}
	<-l.done
	if l.ctx.Err() != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	defer l.cancel()
	if l.err != nil {
		return nil // it ended by itself, as Err returns
	}
	if l.stream == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	_, err := l.exchange(&ententev1.KeepLeaseRequest{Release: true})
	return err
}

// run renews the lease until Close, or an error that does not go away by itself.
func (l *Lease) run() {
	defer close(l.done)
	tick := time.NewTicker(min(l.cfg.TTL/renewalsPerLease, maxRenewalInterval))
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-l.ctx.Done():
			return
		case c := <-l.changes:
			c.result <- l.setHealth(c.change)
			continue
		case <-tick.C:
		}
		switch err := l.renew(&ententev1.KeepLeaseRequest{}); {
		case err == nil:
			if l.failing {
				l.cfg.OnEvent(Event{Kind: Recovered, Message: "is renewed again"})
			}
			l.failing = false
			if l.err = l.lost; l.err != nil {
				_, _ = l.exchange(&ententev1.KeepLeaseRequest{Release: true}) // otherwise it runs out
				l.cancel()
				return
			}
		case l.ctx.Err() != nil:
			return
		case transient(err), status.Code(err) == codes.Canceled: // the timeout of an answer cancels the stream
			if !l.failing {
				l.cfg.OnEvent(Event{RenewalFailed, "could not be renewed, and is retried", err})
			}
			l.failing = true
		default:
			l.err = err
			l.cancel()
			return
		}
	}
}

func (l *Lease) setHealth(change *ententev1.HealthChange) error {
	for _, i := range l.instances {
		if i.GetService() == change.GetService() && i.GetAddress() == change.GetAddress() {
			was := i.GetHealth()
			i.Health = change.GetHealth()
			err := l.renew(&ententev1.KeepLeaseRequest{Health: []*ententev1.HealthChange{change}})
			if err != nil {
				i.Health = was
			}
			return err
		}
	}
	return fmt.Errorf("the lease has no instance of %s at %s", change.GetService(), change.GetAddress())
}

// open opens a stream on which the lease is taken, or taken up again.
func (l *Lease) open() error {
	var ctx context.Context
	ctx, l.drop = context.WithCancel(l.ctx)
	var err error
	if l.stream, err = l.routing.KeepLease(ctx); err != nil {
		l.dropStream()
		return err
	}
	open := &ententev1.OpenLease{Ttl: durationpb.New(l.cfg.TTL), Secret: l.secret}
	if l.cfg.RemovalDelay != 0 {
		open.RemovalDelay = durationpb.New(l.cfg.RemovalDelay)
	}
	answer, err := l.exchange(&ententev1.KeepLeaseRequest{Open: open})
	if err != nil {
		return err
	}
	l.secret = answer.GetSecret()
	return nil
}

// exchange sends a message and waits for its answer. After an error no stream is open.
func (l *Lease) exchange(m *ententev1.KeepLeaseRequest) (*ententev1.KeepLeaseResponse, error) {
	late := time.AfterFunc(l.cfg.CallTimeout, l.drop)
	defer late.Stop()
	sent := l.stream.Send(m)
	answer, err := l.stream.Recv() // returns what ended the stream, where Send returns io.EOF
	if err == nil {
		err = sent
	}
	if err != nil {
		l.dropStream()
		return nil, err
	}
	for _, lost := range answer.GetLost() {
		l.lose(lost.GetService(), lost.GetAddress(), lossOf(lost))
	}
	return answer, nil
}

// lossOf returns how an instance was lost.
func lossOf(m *ententev1.LostInstance) string {
	by, how := m.GetBy(), "was taken over"
	if by == "" {
		by = "another caller"
	}
	if m.GetRemoved() {
		how = "was removed"
	}
	return how + " by " + by
}

// lose drops an instance that another caller took from the lease. It reports the loss, unless it is known already.
func (l *Lease) lose(service, address, how string) {
	before := len(l.instances)
	l.instances = slices.DeleteFunc(slices.Clone(l.instances), func(i *ententev1.Instance) bool {
		return i.GetService() == service && i.GetAddress() == address
	})
	if len(l.instances) == before {
		return
	}
	l.cfg.OnEvent(Event{Kind: Lost, Message: fmt.Sprintf("%s (%s at %s)", how, service, address)})
	if len(l.instances) == 0 {
		l.lost = fmt.Errorf("the instance of %s at %s %s: %w", service, address, how, ErrLeaseLost)
	}
}

func (l *Lease) dropStream() {
	l.drop()
	l.stream = nil
}

// renew sends a renewal, on a new stream if need be. If the lease is gone, a new one is taken and the instances are
// registered again.
func (l *Lease) renew(m *ententev1.KeepLeaseRequest) error {
	var err error
	if l.stream != nil {
		if _, err = l.exchange(m); err == nil {
			return nil
		}
	}
	if status.Code(err) != codes.NotFound {
		err = l.open()
		if err == nil && len(m.GetHealth()) > 0 {
			_, err = l.exchange(m)
		}
		if status.Code(err) != codes.NotFound {
			return err
		}
	}
	l.cfg.OnEvent(Event{Kind: Registered, Message: "was removed, and is registered again"})
	l.secret = ""
	if err := l.open(); err != nil {
		return err
	}
	_, err = l.register()
	return err
}

// register registers the instances under the lease, and returns them as registered. What others hold is an error at
// the first registration, and lost later.
func (l *Lease) register() ([]*ententev1.Instance, error) {
	var registered []*ententev1.Instance
	first := l.registered == nil
	for _, i := range l.instances {
		request := &ententev1.RegisterInstanceRequest{Instance: proto.CloneOf(i), TakeOver: first && l.cfg.TakeOver}
		request.Instance.Lease = l.secret
		ctx, cancel := context.WithTimeout(l.ctx, l.cfg.CallTimeout)
		made, err := l.routing.RegisterInstance(ctx, request)
		cancel()
		if !first && status.Code(err) == codes.FailedPrecondition {
			l.lose(i.GetService(), i.GetAddress(), "was taken over: "+status.Convert(err).Message())
			continue
		}
		if err != nil {
			return nil, err
		}
		registered = append(registered, made)
	}
	return registered, nil
}
