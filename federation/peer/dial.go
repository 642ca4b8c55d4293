package peer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// FirstDial is the first wait between two attempts to open a stream.
	FirstDial = 200 * time.Millisecond
	// LastDial is the longest wait between two attempts.
	LastDial = 30 * time.Second
	// Settled is how long a stream has to have been open for the next attempt to be made as soon as the first.
	Settled = 5 * time.Second
	// yieldCheck is how often a member that gives way checks whether it still has to.
	yieldCheck = time.Second
)

// unreachable is the reason for which a stream was not opened if no address answered.
const unreachable = "unreachable"

// starting is the reason for which a member that was just started accepts no stream yet. The next address is tried.
const starting = "starting"

// networkReasons are the reasons, besides [session.OrderlyReasons], for which a stream with a working peer ends or is
// not opened.
var networkReasons = []string{unreachable, "lost", "silent", "stalled", "unacknowledged", "lagging"}

// resetsBackoff reports whether the next attempt is made as soon as the first, after a stream that was open for some
// time. It is not if the peer violated the protocol, however late that was detected.
func resetsBackoff(lived time.Duration, end string) bool {
	return lived > Settled && (slices.Contains(session.OrderlyReasons, end) || slices.Contains(networkReasons, end))
}

// dialer keeps a stream open to one peer, while this member is the one to open it.
type dialer struct {
	streams *Streams
	home    string
	cancel  context.CancelFunc
	// first is when the first attempt is made. When a member dies, thousands of its peers are not dialled at once.
	first time.Time
	// worked is the address that answered last, and end the reason for which the last attempt or stream ended.
	worked, end string
}

// dialLocked starts a dialer. The mutex of streams is held.
func (r *reconciler) dialLocked(ctx context.Context, home string) *dialer {
	ctx, cancel := context.WithCancel(ctx)
	d := &dialer{streams: r.streams, home: home, cancel: cancel, first: r.dialing.After(r.streams.config.Now())}
	r.streams.work.Go(func() { d.run(ctx) })
	return d
}

func (d *dialer) run(ctx context.Context) {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval, retry.RandomizationFactor = FirstDial, LastDial, 0.5
	now := d.streams.config.Now
	wait := d.first.Sub(now())
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = yieldCheck
		if !d.streams.reconciler.yields(d.home) {
			began := now()
			d.end = unreachable
			d.attempt(ctx)
			if resetsBackoff(now().Sub(began), d.end) {
				retry.Reset()
			}
			wait = retry.NextBackOff()
		}
	}
}

// attempt opens the stream at the first address that answers, and runs it until it ends.
func (d *dialer) attempt(ctx context.Context) {
	td, err := spiffeid.TrustDomainFromString(d.home)
	if err != nil {
		return // it was parsed with the relationship
	}
	var failures []error
	for _, address := range d.addresses() {
		if err = d.streamAt(ctx, address, td); err == nil {
			return
		}
		failures = append(failures, err)
	}
	if err := errors.Join(failures...); err != nil && ctx.Err() == nil {
		text := relationship.Clip(strings.ReplaceAll(err.Error(), "\n", "; "))
		reason := unreachable
		if e, ok := errors.AsType[*session.Error](err); ok {
			reason = e.Reason
		}
		d.streams.metrics.streamsEnded.WithLabelValues(reason).Inc()
		d.streams.config.Logger.Warn(
			"no stream to a peer; its bundles are fetched",
			"peer",
			d.home,
			"result",
			reason,
			"error",
			text,
		)
		d.streams.reports.ended(d.home, "", true, reason, text)
	}
}

// addresses returns the addresses of the plan, the one that worked last first.
func (d *dialer) addresses() []string {
	plan, _ := d.streams.plans.of(d.home)
	out := make([]string, 0, len(plan.Addresses))
	for _, address := range plan.Addresses {
		if address == d.worked {
			out = append([]string{address}, out...)
		} else {
			out = append(out, address)
		}
	}
	return out
}

// streamAt opens the stream at an address and runs it until it ends. It returns an error if there was no stream.
func (d *dialer) streamAt(ctx context.Context, address string, home spiffeid.TrustDomain) error {
	route := d.streams.config.Route
	if plan, _ := d.streams.plans.of(d.home); plan.Route != nil {
		route = *plan.Route
	}
	o, err := d.streams.config.Open(ctx, route, address, home)
	if err != nil {
		return err
	}
	defer o.HangUp()
	d.worked = address
	c := d.streams.config
	// The stream outlives ctx, so that the peer is sent the reason for its end.
	s := newStream(
		context.WithoutCancel(ctx),
		d.streams,
		session.New(c.Home.Name(), c.Member(), d.home, o.Remote, true, c.Now()),
		o.Wire,
	)
	if err := d.streams.join(s); err != nil {
		return err
	}
	err = d.streams.keep(s)
	if d.end = session.ReasonOf(err); d.end == starting {
		d.worked = ""
		return err
	}
	return nil
}
