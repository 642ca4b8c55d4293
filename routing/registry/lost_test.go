package registry

import (
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/routingtest"
)

// plane is a control plane with one instance in each of some services.
type plane struct {
	*holderClient
	number int
}

func (m *member) plane(t *testing.T, number int, services ...string) plane {
	t.Helper()
	h, err := m.hold(t, routingtest.Plane, tenSeconds())
	require.NoError(t, err)
	p := plane{h, number}
	for _, service := range services {
		_, err = m.RegisterInstance(routingtest.Admin(t),
			&ententev1.RegisterInstanceRequest{Instance: p.instance(service)})
		require.NoError(t, err)
	}
	return p
}

func (p plane) instance(service string) *ententev1.Instance {
	i := routingtest.Registration()
	i.Service, i.Address, i.Lease = service, "10.0.1."+strconv.Itoa(p.number)+":443", p.secret
	return i
}

// states returns how the instances of a service count, by the last number of their addresses.
func (m *member) states(t *testing.T, service string) map[int]string {
	t.Helper()
	s, err := m.Catalog.Service(m.store.View(), service)
	require.NoError(t, err)
	states := map[int]string{}
	for _, i := range s.Instances {
		state := i.Health.String()
		if i.Kept {
			state = "kept"
		}
		if !i.Outranked {
			states[int(i.Address.Addr().As4()[3])] = state
		}
	}
	return states
}

// lostTogether returns a member with ten control planes: four of them, which have all of shop and a part of store, are
// cut off. The others renew.
func lostTogether(t *testing.T) (*member, []plane) {
	t.Helper()
	m := newMember(t)
	m.Tracker.Reset()
	var planes []plane
	for n := range 4 {
		planes = append(planes, m.plane(t, n, "shop", "store"))
	}
	for n := range 30 {
		planes = append(planes, m.plane(t, 10+n, "store"))
	}
	m.sweeps(t, 90, func() {
		for _, p := range planes[4:] {
			_, err := p.send(&ententev1.KeepLeaseRequest{})
			require.NoError(t, err)
		}
	})
	return m, planes
}

// TestLostTogether: instances whose leases are lost together stay in the service that they are a great part of, and go
// in the service that they are a small part of.
func TestLostTogether(t *testing.T) {
	m, _ := lostTogether(t)
	require.Equal(t, map[int]string{0: "kept", 1: "kept", 2: "kept", 3: "kept"}, m.states(t, "shop"))
	require.Len(t, m.states(t, "store"), 30, "4 of 34 instances are not more than 15 percent")
	require.InDelta(t, 4, testutil.ToFloat64(gauge(t, m.reg, "entente_routing_kept_instances")), 0)
	here := plan.Locality{Region: "eu-west-1", Zone: "a"}
	hint := m.plan(t, "shop", here).Hint("shop", plan.Locality{Region: "eu"}, 1)
	require.True(t, hint.GetPriorities()[0].GetPanic())
	require.Len(t, hint.GetPriorities()[0].GetLocalities()[0].GetEndpoints(), 4, "all are offered in a panic")
	require.True(t, hint.GetPriorities()[0].GetLocalities()[0].GetEndpoints()[0].GetKept())

	// Another leader comes to the same, and nothing changes without a decision.
	m.Tracker.Reset()
	m.sweeps(t, 5, nil)
	revision := m.store.View().Revision()
	list, err := m.ListLeases(routingtest.Admin(t), &ententev1.ListLeasesRequest{})
	require.NoError(t, err)
	kept := 0
	for _, l := range list.GetLeases() {
		kept += int(l.GetKept())
	}
	require.Equal(t, 4, kept)
	require.Equal(t, revision, m.store.View().Revision())
	require.Len(t, m.states(t, "shop"), 4)
}

// TestLostLeasesAreEvicted: an operator decides.
func TestLostLeasesAreEvicted(t *testing.T) {
	m, planes := lostTogether(t)
	ctx := routingtest.Admin(t)
	evict := func(service, lease string) (uint32, error) {
		done, err := m.EvictInstances(ctx, &ententev1.EvictInstancesRequest{Service: service, Lease: lease})
		return done.GetInstances(), err
	}
	dry, err := m.EvictInstances(ctx, &ententev1.EvictInstancesRequest{Service: "shop", DryRun: true})
	require.NoError(t, err)
	require.EqualValues(t, 4, dry.GetInstances())
	require.Len(t, dry.GetEffects(), 4, "one for each lease")
	require.Equal(t, "1 of shop", dry.GetEffects()[0].GetSubject())
	require.Regexp(t, `^\S+ are removed; the holder of their lease \S+ registers them again if it returns$`,
		dry.GetEffects()[0].GetDetail())
	require.Len(t, m.states(t, "shop"), 4, "nothing was removed")
	_, err = m.EvictInstances(ctx, &ententev1.EvictInstancesRequest{Service: "store", DryRun: true})
	routingtest.Refused(t, err, codes.NotFound, "service store keeps no instance of a lost lease")
	n, err := evict("shop", planes[0].lease.GetId())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Equal(t, map[int]string{1: "kept", 2: "kept", 3: "kept"}, m.states(t, "shop"), "it goes at once")
	n, err = evict("shop", "")
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	require.Empty(t, m.states(t, "shop"))
	_, err = evict("shop", "")
	routingtest.Refused(t, err, codes.NotFound,
		"service shop keeps no instance of a lost lease; 'entente service show shop' lists its instances")
	_, err = evict("Shop", "")
	routingtest.Refused(t, err, codes.InvalidArgument, "Shop")
	m.sweeps(t, 2, func() {
		for _, p := range planes[4:] {
			_, err := p.send(&ententev1.KeepLeaseRequest{})
			require.NoError(t, err)
		}
	})
	for _, p := range planes[:4] {
		_, found, err := Leases.Get(m.store.View(), p.lease.GetId())
		require.NoError(t, err)
		require.False(t, found, "a lease without instances stays")
	}
	rows, err := Instances.List(m.store.View(), "shop/")
	require.NoError(t, err)
	require.Empty(t, rows)
}

// TestHolderReturns: the holder of lost instances that are kept everywhere renews its lease, and they count at once. A
// holder that has lost some has to open another lease, and its registrations end what is kept.
func TestHolderReturns(t *testing.T) {
	m := newMember(t)
	m.Tracker.Reset()
	planes := []plane{m.plane(t, 0, "shop"), m.plane(t, 1, "shop")}
	m.sweeps(t, 90, nil)
	require.Equal(t, map[int]string{0: "kept", 1: "kept"}, m.states(t, "shop"))
	_, err := planes[0].send(&ententev1.KeepLeaseRequest{})
	require.NoError(t, err)
	require.Equal(t, map[int]string{0: "healthy", 1: "kept"}, m.states(t, "shop"))
	// It is lost again, alone, and what the other one left is still kept.
	m.sweeps(t, 20, nil)
	require.Equal(t, map[int]string{0: "unhealthy", 1: "kept"}, m.states(t, "shop"))

	m, planes = lostTogether(t)
	_, err = planes[0].send(&ententev1.KeepLeaseRequest{})
	routingtest.Refused(t, err, codes.NotFound, "is gone, with all its instances: open a new one")
	again := m.plane(t, 0, "shop", "store")
	require.Equal(t, "healthy", m.states(t, "shop")[0])
	require.Equal(t, "kept", m.states(t, "shop")[1])
	m.sweeps(t, 3, func() {
		for _, p := range append(planes[4:], again) {
			_, err := p.send(&ententev1.KeepLeaseRequest{})
			require.NoError(t, err)
		}
	})
	_, found, err := Leases.Get(m.store.View(), planes[0].lease.GetId())
	require.NoError(t, err)
	require.False(t, found, "the lease whose only instance was registered again stays")
}

// TestShortRemovalDelay: a lease is not judged before it is known which others end with it.
func TestShortRemovalDelay(t *testing.T) {
	m := newMember(t)
	m.Tracker.Reset()
	var planes []plane
	for n := range 20 {
		open := tenSeconds()
		open.RemovalDelay = durationpb.New(0)
		h, err := m.hold(t, routingtest.Plane, open)
		require.NoError(t, err)
		p := plane{h, n}
		planes = append(planes, p)
		_, err = m.register(routingtest.Admin(t), p.instance("shop"))
		require.NoError(t, err)
	}
	second := 0
	m.sweeps(t, 120, func() { // they end one after the other
		for n, p := range planes {
			if n > second {
				_, err := p.send(&ententev1.KeepLeaseRequest{})
				require.NoError(t, err)
			}
		}
		second++
	})
	require.Len(t, m.states(t, "shop"), 20)
}
