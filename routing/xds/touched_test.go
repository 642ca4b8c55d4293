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

// lease puts a lease into the table, and returns its ID and the secret that instances are registered under it with.
func (r *room) lease(number int) (id, secret string) {
	r.t.Helper()
	secret = fmt.Sprintf("%032x", number)
	raw, err := hex.DecodeString(secret)
	require.NoError(r.t, err)
	digest := sha256.Sum256(raw)
	id = hex.EncodeToString(digest[:8])
	r.putLease(id, &statev1.Lease{SecretSha256: digest[:], Owner: "the local administrator"})
	return id, secret
}

func (r *room) putLease(id string, row *statev1.Lease) {
	r.t.Helper()
	_, err := r.store.Update(r.t.Context(), func(tx *raftstore.Tx) error { return registry.Leases.Put(tx, id, row) })
	require.NoError(r.t, err)
}

// lapse makes a lease run out, or takes it up again.
func (r *room) lapse(id string, lapsed bool) {
	r.t.Helper()
	row, found, err := registry.Leases.Get(r.store.View(), id)
	require.NoError(r.t, err)
	require.True(r.t, found)
	row.Value.LapseTime = nil
	if lapsed {
		row.Value.LapseTime = timestamppb.Now()
	}
	r.putLease(id, row.Value)
}

// under registers an instance of a service under a lease.
func (r *room) under(secret, service string, number int) {
	r.t.Helper()
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(number >> 8), byte(number)}), 80)
	_, err := routing.NewServer(r.manager.Manager).RegisterInstance(access.WithCaller(r.t.Context(), access.SocketCaller(0, 1)), &ententev1.RegisterInstanceRequest{
		Instance: &ententev1.Instance{
			Lease: secret, Service: service, Address: address.String(), SpiffeId: "spiffe://eu.example.org/" + service,
			Locality: &ententev1.Locality{Region: "eu", Zone: "a"},
		},
	})
	require.NoError(r.t, err)
}

// endpointsOf opens a delta stream for the endpoints of services, and returns what reads its next answer.
func (r *room) endpointsOf(names ...string) func() *discovery.DeltaDiscoveryResponse {
	r.t.Helper()
	s, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(r.t.Context())
	require.NoError(r.t, err)
	require.NoError(r.t, s.Send(&discovery.DeltaDiscoveryRequest{Node: node("grpc", "eu/a"), TypeUrl: string(xds.Endpoints), ResourceNamesSubscribe: names}))
	return func() *discovery.DeltaDiscoveryResponse {
		m, err := s.Recv()
		require.NoError(r.t, err)
		require.NoError(r.t, s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}))
		return m
	}
}

// TestLeaseTouchesItsServices has a lease in two services of twenty run out: the routes of those two are planned anew, and of no
// other, unless the time for a look at everything has come.
func TestLeaseTouchesItsServices(t *testing.T) {
	r := newRoom(t)
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
		r.lapse(leases[3], attempt%2 == 1)
		var told []string
		for len(told) < 2 {
			for _, resource := range next().GetResources() {
				told = append(told, resource.GetName())
			}
		}
		require.ElementsMatch(t, []string{"service-0", "service-3"}, told)
		looks := r.manager.since()
		if len(looks) == 2 {
			require.Positive(t, looks["service-0"]*looks["service-3"])
			return
		}
		// Everything is looked at every five seconds, and only then.
		require.Less(t, attempt, 20, "a lease of two services has %d looked at after %s", len(looks), time.Since(before))
	}
}

// BenchmarkLease has 2,000 services with a lease each, all of which a stream asked for, and one lease after the other run out and
// taken up again: the time until the stream is told, of which 50 ms is gathering, and how many services were planned for it.
func BenchmarkLease(b *testing.B) {
	const services = 2000
	r := newRoom(b)
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
		r.lapse(leases[changes/2%services], changes%2 == 0)
		changes++
		require.True(b, strings.HasPrefix(next().GetResources()[0].GetName(), "service-"))
	}
	plans := 0
	for _, n := range r.manager.since() {
		plans += n
	}
	b.ReportMetric(float64(plans)/float64(changes), "plans/op")
}
