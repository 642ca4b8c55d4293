package xds_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/xds"
)

// lease stores a lease, and returns its ID and its secret.
func (r *fixture) lease(number int) (id, secret string) {
	r.t.Helper()
	secret = fmt.Sprintf("%032x", number)
	raw, err := hex.DecodeString(secret)
	require.NoError(r.t, err)
	digest := sha256.Sum256(raw)
	id = hex.EncodeToString(digest[:8])
	r.putLease(id, &statev1.Lease{SecretSha256: digest[:], Owner: "the local administrator"})
	return id, secret
}

func (r *fixture) putLease(id string, row *statev1.Lease) {
	r.t.Helper()
	_, err := r.store.Update(r.t.Context(), func(tx *raftstore.Tx) error { return registry.Leases.Put(tx, id, row) })
	require.NoError(r.t, err)
}

// setExpired makes a lease run out, or renews it.
func (r *fixture) setExpired(id string, expired bool) {
	r.t.Helper()
	row, found, err := registry.Leases.Get(r.store.View(), id)
	require.NoError(r.t, err)
	require.True(r.t, found)
	row.Value.ExpireTime = nil
	if expired {
		row.Value.ExpireTime = timestamppb.Now()
	}
	r.putLease(id, row.Value)
}

// under registers an instance of a service under a lease.
func (r *fixture) under(secret, service string, number int) {
	r.t.Helper()
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(number >> 8), byte(number)}), 80)
	_, err := routing.NewServer(r.manager.Manager).
		RegisterInstance(access.WithCaller(
			r.t.Context(),
			access.SocketCaller(0, 1),
		), &ententev1.RegisterInstanceRequest{
			Instance: &ententev1.Instance{
				Lease: secret, Service: service, Address: address.String(),
				SpiffeId: "spiffe://eu.example.org/" + service,
				Locality: &ententev1.Locality{Region: "eu", Zone: "a"},
			},
		})
	require.NoError(r.t, err)
}

// endpointsOf opens a delta stream for the endpoints of services, and returns what reads its next answer.
func (r *fixture) endpointsOf(names ...string) func() *discovery.DeltaDiscoveryResponse {
	r.t.Helper()
	s, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(r.t.Context())
	require.NoError(r.t, err)
	require.NoError(
		r.t,
		s.Send(
			&discovery.DeltaDiscoveryRequest{
				Node:                   node("grpc", "eu/a"),
				TypeUrl:                string(xds.Endpoints),
				ResourceNamesSubscribe: names,
			},
		),
	)
	return func() *discovery.DeltaDiscoveryResponse {
		m, err := s.Recv()
		require.NoError(r.t, err)
		require.NoError(
			r.t,
			s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}),
		)
		return m
	}
}

// TestLeaseAffectsItsServices: when a lease with instances in two of twenty services runs out, only these two are
// planned again, unless the periodic check of all services happens at the same time.
func TestLeaseAffectsItsServices(t *testing.T) {
	r := newFixture(t)
	var names []string
	var leases []string
	for n := range 20 {
		id, secret := r.lease(n)
		leases, names = append(leases, id), append(names, fmt.Sprintf("service-%d", n))
		r.under(secret, names[n], n)
		r.under("", names[n], 10000+n) // stays, so that there is no panic
		if n == 3 {
			r.under(secret, "service-0", 100)
		}
	}
	next := r.endpointsOf(names...)
	require.Len(t, next().GetResources(), 20)
	for attempt := 1; ; attempt++ {
		before := time.Now()
		r.manager.since()
		r.setExpired(leases[3], attempt%2 == 1)
		var changed []string
		for len(changed) < 2 {
			for _, resource := range next().GetResources() {
				changed = append(changed, resource.GetName())
			}
		}
		require.ElementsMatch(t, []string{"service-0", "service-3"}, changed)
		plans := r.manager.since()
		if len(plans) == 2 {
			require.Positive(t, plans["service-0"]*plans["service-3"])
			return
		}
		// The check of all services runs every five seconds.
		require.Less(
			t,
			attempt,
			20,
			"a lease of two services made %d services be planned, after %s",
			len(plans),
			time.Since(before),
		)
	}
}

// BenchmarkLease has a stream that subscribes to 2,000 services with one lease each. One lease after the other runs out
// and is held again. It measures the time until the stream is sent the change, 50 ms of which gather changes, and the
// number of services that are planned.
func BenchmarkLease(b *testing.B) {
	const services = 2000
	r := newFixture(b)
	var names, leases []string
	for n := range services {
		id, secret := r.lease(n)
		leases, names = append(leases, id), append(names, fmt.Sprintf("service-%d", n))
		r.under(secret, names[n], n)
		r.under("", names[n], 10000+n) // stays, so that there is no panic
	}
	next := r.endpointsOf(names...)
	for seen := 0; seen < services; {
		seen += len(next().GetResources())
	}
	r.manager.since()
	changes := 0
	for b.Loop() {
		r.setExpired(leases[changes/2%services], changes%2 == 0)
		changes++
		require.True(b, strings.HasPrefix(next().GetResources()[0].GetName(), "service-"))
	}
	plans := 0
	for _, n := range r.manager.since() {
		plans += n
	}
	b.ReportMetric(float64(plans)/float64(changes), "plans/op")
}
