package xds

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	ads "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/internal/xdsupdate"
)

const (
	firstRetry, lastRetry = 50 * time.Millisecond, 5 * time.Second
	// settled is when a stream without a message counts as one to a member: one that is refused ends at once.
	settled = 2 * time.Second
)

// run holds a stream to a member until ctx ends or a member refuses.
func (g *group) run(ctx context.Context, conn grpc.ClientConnInterface) {
	defer g.age.Stop()
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = firstRetry, lastRetry
	outage := false
	for {
		lived, err := g.stream(ctx, conn)
		if ctx.Err() != nil {
			return
		}
		if denied := refused(err); denied != nil {
			g.log().Warn("a member refuses routes, and the xDS streams of this identity end", "error", denied)
			g.fail(denied)
			return
		}
		if lived {
			wait.Reset()
			outage = false
		}
		if !outage {
			g.log().Warn("has no xDS stream to a member, and keeps the routes until one is open again", "error", err)
		}
		outage = true
		timer := time.NewTimer(wait.NextBackOff())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// upstream is an open stream to a member.
type upstream struct {
	ads.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	// requested are the subscriptions that the member has received.
	requested map[typed]bool
	// types are those of which it has received a request.
	types map[xdsupdate.Type]bool
}

// stream holds one stream until it ends. lived means that it was one to a member that answers.
func (g *group) stream(ctx context.Context, conn grpc.ClientConnInterface) (lived bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	raw, err := ads.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		return false, err
	}
	up := &upstream{raw, map[typed]bool{}, map[xdsupdate.Type]bool{}}
	type received struct {
		m   *ads.DeltaDiscoveryResponse
		err error
	}
	messages := make(chan received)
	go func() { // it ends with the stream
		for {
			m, err := up.Recv()
			select {
			case messages <- received{m, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	timer := time.NewTimer(settled)
	defer timer.Stop()
	defer func() {
		if lived {
			g.lost()
		}
	}()
	live := func() {
		if !lived {
			lived = true
			g.reached()
		}
	}
	if err := g.request(up); err != nil {
		return false, err
	}
	for {
		select {
		case <-ctx.Done():
			return lived, ctx.Err()
		case <-timer.C:
			live()
		case <-g.wake:
			if err := g.request(up); err != nil {
				return lived, err
			}
		case r := <-messages:
			switch {
			case errors.Is(r.err, io.EOF):
				return lived, errEnded
			case r.err != nil:
				return lived, r.err
			}
			live()
			if err := g.receive(r.m, up); err != nil {
				return lived, err
			}
			err := up.send(&ads.DeltaDiscoveryRequest{TypeUrl: r.m.GetTypeUrl(), ResponseNonce: r.m.GetNonce()})
			if err != nil {
				return lived, err
			}
		}
	}
}

// send sends a request. If the member has ended the stream, the reason follows from Recv.
func (u *upstream) send(m *ads.DeltaDiscoveryRequest) error {
	if err := u.Send(m); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// request sends what has changed of the subscriptions, of each type in one request.
func (g *group) request(up *upstream) error {
	g.mu.Lock()
	requests := map[xdsupdate.Type]*ads.DeltaDiscoveryRequest{}
	of := func(t xdsupdate.Type) *ads.DeltaDiscoveryRequest {
		if requests[t] == nil {
			requests[t] = &ads.DeltaDiscoveryRequest{TypeUrl: string(t)}
		}
		return requests[t]
	}
	for key := range g.subscriptions {
		if !up.requested[key] {
			m := of(key.of)
			m.ResourceNamesSubscribe = append(m.ResourceNamesSubscribe, key.name)
		}
	}
	for key := range up.requested {
		if g.subscriptions[key] == nil {
			m := of(key.of)
			m.ResourceNamesUnsubscribe = append(m.ResourceNamesUnsubscribe, key.name)
		}
	}
	for t, m := range requests {
		if up.types[t] {
			continue
		}
		// The first request of a type states what is there, so that the member sends what differs.
		m.InitialResourceVersions = map[string]string{}
		for key, r := range g.resources {
			if key.of == t && !r.Absent {
				m.InitialResourceVersions[key.name] = r.Version
			}
		}
	}
	g.mu.Unlock()
	for _, t := range xdsupdate.Order {
		m := requests[t]
		if m == nil {
			continue
		}
		slices.Sort(m.GetResourceNamesSubscribe())
		if len(up.types) == 0 {
			m.Node = g.node
		}
		up.types[t] = true
		if err := up.send(m); err != nil {
			return err
		}
		for _, name := range m.GetResourceNamesSubscribe() {
			up.requested[typed{t, name}] = true
		}
		for _, name := range m.GetResourceNamesUnsubscribe() {
			delete(up.requested, typed{t, name})
		}
	}
	return nil
}

// receive takes over a message of a member.
func (g *group) receive(m *ads.DeltaDiscoveryResponse, up *upstream) error {
	t := xdsupdate.Type(m.GetTypeUrl())
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range m.GetResources() {
		if key := (typed{t, r.GetName()}); r.GetResource() != nil && g.subscribed(key) {
			g.resources[key] = &xdsupdate.Resource{Name: r.GetName(), Version: r.GetVersion(), Body: r.GetResource()}
			delete(g.stale, key)
		}
	}
	for _, name := range m.GetRemovedResources() {
		key := typed{t, name}
		delete(g.resources, key)
		delete(g.stale, key)
		if g.subscriptions[key] != nil {
			missing, err := xdsupdate.Missing(t, name)
			if err != nil {
				return err
			}
			g.resources[key] = missing
		}
	}
	if all := (typed{t, everything}); up.requested[all] && g.subscriptions[all] != nil {
		g.known[all] = true
	}
	g.notify()
	return nil
}

// reached records that a stream to a member is open.
func (g *group) reached() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live = true
	g.age.Stop()
	g.notify() // what was left out because of its age is back
}

// lost records that the stream has ended. What it cannot receive counts after some time.
func (g *group) lost() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live, g.disconnected = false, time.Now()
	g.age.Reset(g.cfg.MaxStale)
}
