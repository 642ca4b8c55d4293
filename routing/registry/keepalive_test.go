package registry

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ententehq/entente/access/audit"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry/preserve"
	"github.com/ententehq/entente/routing/routingtest"
)

// holderClient is a control plane with its stream.
type holderClient struct {
	t      *testing.T
	stream ententev1.RoutingService_KeepLeaseClient
	lease  *ententev1.Lease
	secret string
}

func (m *member) hold(t *testing.T, caller access.Caller, open *ententev1.OpenLease) (*holderClient, error) {
	t.Helper()
	stream, err := m.dial(t, caller).KeepLease(t.Context())
	require.NoError(t, err)
	h := &holderClient{t: t, stream: stream}
	answer, err := h.send(&ententev1.KeepLeaseRequest{Open: open})
	h.lease, h.secret = answer.GetLease(), answer.GetSecret()
	return h, err
}

func (h *holderClient) send(m *ententev1.KeepLeaseRequest) (*ententev1.KeepLeaseResponse, error) {
	h.t.Helper()
	if err := h.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		require.NoError(h.t, err)
	}
	return h.stream.Recv()
}

func tenSeconds() *ententev1.OpenLease {
	return &ententev1.OpenLease{Ttl: durationpb.New(10 * time.Second), RemovalDelay: durationpb.New(time.Minute)}
}

// sweeps lets the leader sweep once a second.
func (m *member) sweeps(t *testing.T, seconds int, each func()) {
	t.Helper()
	for range seconds {
		if each != nil {
			each()
		}
		if report := m.Tracker.Collect(false); report != nil {
			m.Tracker.Deliver("eu-1", report)
		}
		m.sweeper.sweep(t.Context())
		m.clock.Pass(time.Second)
	}
}

func (m *member) health(t *testing.T, address string) (health string, exists bool) {
	t.Helper()
	s, err := m.Catalog.Service(m.store.View(), "shop")
	require.NoError(t, err)
	for _, i := range s.Instances {
		if i.Address.String() == address {
			return i.Health.String(), true
		}
	}
	return "", false
}

// TestLease: a lease is kept without a write, runs out by one write, is continued only by its owner, and leaves nothing
// behind when it is gone.
func TestLease(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	h, err := m.hold(t, routingtest.Local, tenSeconds())
	require.NoError(t, err)
	require.Len(t, h.secret, 32)
	require.NotContains(t, h.secret, h.lease.GetId())
	one, two := routingtest.Registration(), routingtest.Registration()
	one.Lease, two.Lease, two.Address = h.secret, h.secret, "10.0.0.2:443"
	for _, i := range []*ententev1.Instance{one, two} {
		made, err := m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(t, err)
		require.Equal(t, h.lease.GetId(), made.GetLease(), "the secret is returned, or another lease")
	}
	m.Tracker.Reset()
	revision := m.store.View().Revision()
	m.sweeps(t, 30, func() {
		_, err := h.send(&ententev1.KeepLeaseRequest{})
		require.NoError(t, err)
	})
	require.Equal(t, revision, m.store.View().Revision(), "a renewal was written")
	require.GreaterOrEqual(t, testutil.ToFloat64(m.Leases.metrics.renewals.WithLabelValues(renewalTaken)), 30.0)

	_, err = h.send(&ententev1.KeepLeaseRequest{Health: []*ententev1.HealthChange{
		{Service: "shop", Address: "10.0.0.1:443", Health: ententev1.Health_HEALTH_DEGRADED},
		{Service: "shop", Address: "10.0.0.2:443", Health: ententev1.Health_HEALTH_DRAINING},
	}})
	require.NoError(t, err)
	health, _ := m.health(t, "10.0.0.1:443")
	require.Equal(t, "degraded", health)
	require.Equal(t, "shop 10.0.0.1:443 degraded, shop 10.0.0.2:443 draining", m.audit.Events()[1].Detail)
	require.Equal(t, audit.ResultDone, m.audit.Events()[1].Result)

	// The lease runs out.
	revision = m.store.View().Revision()
	m.sweeps(t, 15, nil)
	require.Equal(t, revision+1, m.store.View().Revision(), "not exactly one row was written")
	health, _ = m.health(t, "10.0.0.1:443")
	require.Equal(t, "unhealthy", health)
	require.True(
		t,
		m.plan(t, "shop", plan.Locality{Region: "eu", Zone: "a"}).Priorities[0].Panic,
		"all instances are unhealthy",
	)

	// Only its owner continues it, with all its instances.
	_, err = m.hold(t, routingtest.Plane, &ententev1.OpenLease{Ttl: durationpb.New(10 * time.Second), Secret: h.secret})
	routingtest.Refused(t, err, codes.PermissionDenied, "belongs to another owner; open one of your own")
	_, err = m.hold(
		t,
		routingtest.Local,
		&ententev1.OpenLease{Ttl: durationpb.New(10 * time.Second), Secret: leaseNamed(1) + leaseNamed(2)},
	)
	routingtest.Refused(t, err, codes.NotFound, "the lease does not exist")
	again, err := m.hold(
		t,
		access.SocketCaller(0, 7),
		&ententev1.OpenLease{
			Ttl:          durationpb.New(10 * time.Second),
			RemovalDelay: durationpb.New(time.Minute),
			Secret:       h.secret,
		},
	)
	require.NoError(t, err)
	require.Equal(t, h.lease.GetId(), again.lease.GetId())
	health, _ = m.health(t, "10.0.0.1:443")
	require.Equal(t, "degraded", health)

	// It runs out again, and is removed.
	m.sweeper.threshold = preserve.Off
	m.sweeps(t, 80, nil)
	_, exists := m.health(t, "10.0.0.1:443")
	require.False(t, exists)
	left, err := Instances.List(m.store.View(), "")
	require.NoError(t, err)
	require.Empty(t, left, "rows of a removed lease are left")
	_, err = again.send(&ententev1.KeepLeaseRequest{})
	routingtest.Refused(t, err, codes.NotFound, "is gone, with all its instances")
	_, err = m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: one})
	routingtest.Refused(t, err, codes.NotFound, "the lease does not exist, or no longer")
}

// TestNewestStreamHoldsLease: a control plane that lost its connection continues the lease before the member has
// noticed. Its old stream can then neither renew, change nor release the lease.
func TestNewestStreamHoldsLease(t *testing.T) {
	m := newMember(t)
	first, err := m.hold(t, routingtest.Plane, tenSeconds())
	require.NoError(t, err)
	open := tenSeconds()
	open.Secret = first.secret
	second, err := m.hold(t, routingtest.Plane, open)
	require.NoError(t, err)
	require.Equal(t, first.lease.GetId(), second.lease.GetId())
	_, err = first.send(&ententev1.KeepLeaseRequest{Release: true})
	routingtest.Refused(t, err, codes.Aborted, "the lease "+first.lease.GetId()+" is now held by another stream")
	_, err = second.send(&ententev1.KeepLeaseRequest{})
	require.NoError(t, err)
	open.Secret = first.secret
	_, err = m.hold(t, routingtest.Mallory, open)
	routingtest.Refused(t, err, codes.PermissionDenied, "belongs to another owner; open one of your own")
	_, err = second.send(&ententev1.KeepLeaseRequest{Release: true})
	require.NoError(t, err)
}

// TestContinuedLeaseSurvivesSweep: a sweep does not apply what it decided to a lease that has changed since.
func TestContinuedLeaseSurvivesSweep(t *testing.T) {
	m := newMember(t)
	h, err := m.hold(t, routingtest.Plane, tenSeconds())
	require.NoError(t, err)
	s := m.sweeper
	expired := func() bool {
		row, found, err := Leases.Get(m.store.View(), h.lease.GetId())
		require.NoError(t, err)
		require.True(t, found)
		return row.Value.GetExpireTime() != nil
	}
	continueLease := func() {
		open := tenSeconds()
		open.Secret = h.secret
		_, err := m.hold(t, routingtest.Plane, open)
		require.NoError(t, err)
	}
	require.NoError(t, s.load(m.store.View()))
	continueLease()
	require.NoError(t, s.change(t.Context(), s.table, "lease runs out", markExpired(time.Now())))
	require.False(t, expired())
	require.NoError(t, s.load(m.store.View()))
	require.NoError(t, s.change(t.Context(), s.table, "lease runs out", markExpired(time.Now())))
	require.True(t, expired())
	require.NoError(t, s.load(m.store.View()))
	continueLease()
	require.NoError(t, s.settle(t.Context(), []verdict{{lease: s.table[0], whole: true}}))
	require.False(t, expired(), "the lease exists and is held")
}

func TestLeaseIsReleased(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	h, err := m.hold(t, routingtest.Local, tenSeconds())
	require.NoError(t, err)
	one := routingtest.Registration()
	one.Lease = h.secret
	_, err = m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: one})
	require.NoError(t, err)
	list, err := m.ListLeases(ctx, &ententev1.ListLeasesRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetLeases(), 1)
	require.EqualValues(t, 1, list.GetLeases()[0].GetInstances())
	require.Equal(t, "the local administrator", list.GetLeases()[0].GetOwner())
	_, err = h.send(&ententev1.KeepLeaseRequest{Release: true})
	require.NoError(t, err)
	_, exists := m.health(t, "10.0.0.1:443")
	require.False(t, exists)
}

func TestInvalidLeases(t *testing.T) {
	m := newMember(t)
	for _, test := range []struct {
		open *ententev1.OpenLease
		want string
	}{
		{nil, "the first message of a lease has to open it"},
		{&ententev1.OpenLease{}, "not a lease: a ttl of 0s; 5s to 24h0m0s are allowed"},
		{&ententev1.OpenLease{Ttl: durationpb.New(time.Second)}, "a ttl of 1s"},
		{
			&ententev1.OpenLease{Ttl: durationpb.New(time.Minute), RemovalDelay: durationpb.New(-time.Second)},
			"removal_delay is -1s; 0s to 168h0m0s are allowed",
		},
		{
			&ententev1.OpenLease{Ttl: durationpb.New(time.Minute), Secret: "mine"},
			"the secret is not 32 hexadecimal digits",
		},
	} {
		_, err := m.hold(t, routingtest.Plane, test.open)
		routingtest.Refused(t, err, codes.InvalidArgument, test.want)
	}
	h, err := m.hold(t, routingtest.Plane, tenSeconds())
	require.NoError(t, err)
	_, err = h.send(
		&ententev1.KeepLeaseRequest{
			Health: []*ententev1.HealthChange{{Service: "shop", Address: "10.0.0.1:443", Health: 1}},
		},
	)
	routingtest.Refused(t, err, codes.FailedPrecondition, "the lease has no instance of shop at 10.0.0.1:443")
	h, err = m.hold(t, routingtest.Plane, tenSeconds())
	require.NoError(t, err)
	m.clock.Isolate(6 * time.Second)
	_, err = h.send(&ententev1.KeepLeaseRequest{})
	routingtest.Refused(
		t,
		err,
		codes.Unavailable,
		"this member has had no contact with the leader for 6s and could not pass the renewal on; use another member",
	)
	// An instance cannot be registered under the lease of another owner.
	i := routingtest.Registration()
	i.Lease = h.secret
	_, err = m.dial(t, routingtest.Mallory).
		RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{Instance: i})
	routingtest.Refused(t, err, codes.PermissionDenied, "belongs to another owner; open one of your own")
}
