package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoints "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// surface is what one kind of stream of a member shows, over its restarts: a number that rises with every change.
type surface struct {
	// follow opens a stream and reports each number, until it breaks.
	follow func(ctx context.Context, p *process, report func(uint64)) error

	mu       sync.Mutex
	highest  uint64
	streams  int
	problems []string
}

// surfaces follows all of them at a member until the test ends.
func surfaces(t *testing.T, p *process, all map[string]*surface) {
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	for _, s := range all {
		following.Go(func() {
			for ctx.Err() == nil {
				first := true
				_ = s.follow(ctx, p, func(number uint64) { // it breaks when the member is killed
					s.mu.Lock()
					defer s.mu.Unlock()
					if first {
						s.streams++
						first = false
					}
					if number < s.highest {
						s.problems = append(s.problems, fmt.Sprintf("%d after %d", number, s.highest))
					}
					s.highest = max(s.highest, number)
				})
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		following.Wait()
	})
}

// await waits until the surface shows a number, on another stream than the first ones.
func (s *surface) await(number uint64, after int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.highest < number || s.streams <= after {
		return fmt.Errorf("it shows %d on stream %d", s.highest, s.streams)
	}
	return nil
}

// newest returns the number of the newest instance among addresses that register has made.
func newest(addresses []string) (n uint64) {
	for _, address := range addresses {
		var a, b, c, port uint64
		if _, err := fmt.Sscanf(address, "10.%d.%d.%d:%d", &a, &b, &c, &port); err == nil {
			n = max(n, a<<16|b<<8|c)
		}
	}
	return n
}

// followADS follows the endpoints of a service as Envoy does.
func followADS(ctx context.Context, p *process, report func(uint64)) error {
	s, err := discovery.NewAggregatedDiscoveryServiceClient(p.socket().Conn()).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	request := &discovery.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: []string{"web"},
		Node: &core.Node{Id: "test", UserAgentName: "envoy", Locality: &core.Locality{Region: "r", Zone: "z"}}}
	for {
		if err := s.Send(request); err != nil {
			return err
		}
		m, err := s.Recv()
		if err != nil {
			return err
		}
		for _, r := range m.GetResources() {
			a := &endpoints.ClusterLoadAssignment{}
			if err := r.UnmarshalTo(a); err != nil {
				return err
			}
			report(newest(assigned(a)))
		}
		request = &discovery.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: []string{"web"},
			VersionInfo: m.GetVersionInfo(), ResponseNonce: m.GetNonce()}
	}
}

func assigned(a *endpoints.ClusterLoadAssignment) (addresses []string) {
	for _, l := range a.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			s := e.GetEndpoint().GetAddress().GetSocketAddress()
			addresses = append(addresses, fmt.Sprintf("%s:%d", s.GetAddress(), s.GetPortValue()))
		}
	}
	return addresses
}

// followHint follows the hint for a service.
func followHint(ctx context.Context, p *process, report func(uint64)) error {
	w, err := p.socket().Routing().WatchHint(ctx, &ententev1.WatchHintRequest{
		Service: "web", Locality: &ententev1.Locality{Region: "r", Zone: "z"},
	})
	if err != nil {
		return err
	}
	for {
		h, err := w.Recv()
		if err != nil {
			return err
		}
		var addresses []string
		for _, priority := range h.GetPriorities() {
			for _, l := range priority.GetLocalities() {
				for _, e := range l.GetEndpoints() {
					addresses = append(addresses, e.GetAddress())
				}
			}
		}
		report(newest(addresses))
	}
}

// followBundles returns a function that follows the sequence of a domain's bundle.
func followBundles(domain string) func(ctx context.Context, p *process, report func(uint64)) error {
	return func(ctx context.Context, p *process, report func(uint64)) error {
		w, err := p.socket().Bundles().WatchBundles(ctx, &ententev1.WatchBundlesRequest{
			TrustDomains: []string{domain},
		})
		if err != nil {
			return err
		}
		for {
			m, err := w.Recv()
			if err != nil {
				return err
			}
			for _, b := range m.GetChanged() {
				report(b.GetSequence())
			}
		}
	}
}

// No stream of a member that is killed again and again shows an older state than one before it: xDS, hints and bundles,
// while instances, bundles and authorities change all the time.
func TestStreamsNeverGoBackOverRestarts(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	last, first := c.members[2], c.members[0]
	ctx, cancel := context.WithTimeout(t.Context(), 4*waitLimit)
	defer cancel()
	all := map[string]*surface{
		"xDS": {follow: followADS}, "hints": {follow: followHint}, "bundles": {follow: followBundles(c.domain)},
	}
	surfaces(t, last, all)
	changes := uint64(0)
	change := func() (shown map[string]uint64) {
		changes++
		eventually(t, "an instance is registered", func() error {
			return register(ctx, first, c.domain, "web", int(changes)) //nolint:gosec // a few
		})
		eventually(t, "the one before is removed", func() error {
			_, err := first.socket().Routing().DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
				Service: "web", Address: fmt.Sprintf("10.0.0.%d:80", changes-1),
			})
			if errors.Is(err, client.ErrNotFound) {
				return nil
			}
			return err
		})
		shown = map[string]uint64{"xDS": changes, "hints": changes}
		eventually(t, "the bundle changes", func() error {
			_, err := first.socket().Domains().UpdateDomain(ctx, &ententev1.UpdateDomainRequest{
				Domain: &ententev1.Domain{
					TrustDomain: c.domain,
					RefreshHint: durationpb.New(time.Duration(60+changes) * time.Second), //nolint:gosec // a few
				},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"refresh_hint"}},
			})
			if err != nil {
				return err
			}
			b, err := first.socket().Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: c.domain})
			shown["bundles"] = b.GetSequence()
			return err
		})
		return shown
	}
	for restarts := range 4 {
		shown := change()
		for name, s := range all {
			eventually(t, fmt.Sprintf("%s show change %d after %d restarts", name, changes, restarts), func() error {
				return s.await(shown[name], restarts)
			})
		}
		if restarts < 3 {
			last.kill()
			change()
			last.run()
		}
	}
	for name, s := range all {
		s.mu.Lock()
		require.Empty(t, s.problems, name)
		s.mu.Unlock()
	}
}

// A peer never receives an older bundle over the stream than before, and raises no alarm of a rollback, while the
// member that has the stream is killed again and again.
func TestPeersNeverSeeARollbackOverRestarts(t *testing.T) {
	eu, us := newCluster(t, "eu", 3, endpointHint("1h")), newCluster(t, "us", 1, endpointHint("1h"))
	peerUp(t, eu, us)
	received := &surface{follow: followBundles(eu.domain)}
	surfaces(t, us.members[0], map[string]*surface{"bundles": received})
	for range 3 {
		holder, _ := eu.holder(us.domain, nil)
		before := changed(t, eu)
		awaitArrival(t, eu, us, before)
		holder.kill()
		meanwhile := changed(t, eu)
		holder.run()
		awaitArrival(t, eu, us, meanwhile)
		holder.waitReady()
	}
	require.NotContains(t, strings.ToLower(us.members[0].logs()), "rollback")
	received.mu.Lock()
	defer received.mu.Unlock()
	require.Empty(t, received.problems)
	require.Equal(t, 1, received.streams)
}
