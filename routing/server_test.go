package routing

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// trustTable holds the state of each foreign domain as a row, so that hints can be watched as in production.
var trustTable = raftstore.NewTable[*statev1.Instance]("routing_test_trust")

type tableTrust struct{}

func (tableTrust) State(r raftstore.Reader, td spiffeid.TrustDomain) (TrustState, error) {
	if td.Name() == "eu.example.org" {
		return TrustFresh, nil
	}
	row, found, err := trustTable.Get(r, td.Name())
	if err != nil || !found {
		return TrustUnknown, err
	}
	return TrustState(row.Value.GetWeight()), nil
}

func (tableTrust) Prefixes() []raftstore.Prefix { return []raftstore.Prefix{trustTable.Prefix("")} }

type auditLog struct {
	mu     sync.Mutex
	events []access.Event
	full   bool
}

func (a *auditLog) Record(e access.Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.full {
		return errors.New("no space left on device")
	}
	a.events = append(a.events, e)
	return nil
}

// room is a manager on a store of its own, with a clock that stands still until it is moved.
type room struct {
	*Manager
	*Server
	audit *auditLog
	reg   *prometheus.Registry

	mu    sync.Mutex
	clock time.Time
	heard time.Time
}

func newRoom(t *testing.T) *room {
	t.Helper()
	r := &room{audit: &auditLog{}, reg: prometheus.NewRegistry(), clock: epoch, heard: epoch}
	m, err := New(Config{
		Store: raftstoretest.New(t), Trust: tableTrust{}, Audit: r.audit, Registerer: r.reg,
		Now:       func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.clock },
		LastHeard: func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.heard },
	})
	require.NoError(t, err)
	r.Manager, r.Server = m, NewServer(m)
	return r
}

func (r *room) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock = r.clock.Add(d)
	r.heard = r.clock
}

func (r *room) setTrust(t *testing.T, td string, state TrustState) {
	t.Helper()
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return trustTable.Put(tx, td, &statev1.Instance{Weight: uint32(state)})
	})
	require.NoError(t, err)
}

func admin(t *testing.T) context.Context {
	return access.WithCaller(t.Context(), access.SocketCaller(0, 1))
}

func refused(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, code, status.Code(err), err.Error())
	require.Contains(t, status.Convert(err).Message(), text)
}

func TestRegisterRenewDeregister(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	first, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: registration()})
	require.NoError(t, err)
	require.Len(t, first.GetLeaseId(), 32)
	require.NotZero(t, first.GetRevision())
	require.EqualValues(t, 1, first.GetWeight())
	require.Equal(t, ententev1.Health_HEALTH_HEALTHY, first.GetHealth())
	require.Equal(t, epoch, first.GetRegisterTime().AsTime())
	renew := func(lease string, health ententev1.Health) (*ententev1.RenewInstanceResponse, error) {
		return r.RenewInstance(ctx, &ententev1.RenewInstanceRequest{Service: "shop", Address: "10.0.0.1:443", LeaseId: lease, Health: health})
	}

	renewed, err := renew(first.GetLeaseId(), 0)
	require.NoError(t, err)
	require.Equal(t, 10*time.Second, renewed.GetTtl().AsDuration())
	revision := r.store.View().Revision()
	_, err = renew(first.GetLeaseId(), ententev1.Health_HEALTH_HEALTHY)
	require.NoError(t, err)
	require.Equal(t, revision, r.store.View().Revision(), "a renewal was written")
	_, err = renew(first.GetLeaseId(), ententev1.Health_HEALTH_DEGRADED)
	require.NoError(t, err)
	shown, err := r.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
	require.NoError(t, err)
	require.Len(t, shown.GetInstances(), 1)
	require.Equal(t, ententev1.Health_HEALTH_DEGRADED, shown.GetInstances()[0].GetHealth())
	require.Empty(t, shown.GetInstances()[0].GetLeaseId(), "the lease is shown to everybody")

	// Changing it under the same lease.
	change := registration()
	change.LeaseId, change.Weight = first.GetLeaseId(), 7
	changed, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: change})
	require.NoError(t, err)
	require.Equal(t, first.GetLeaseId(), changed.GetLeaseId())
	require.EqualValues(t, 7, changed.GetWeight())
	again, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: change})
	require.NoError(t, err)
	require.Equal(t, changed.GetRevision(), again.GetRevision(), "the same once more was written")

	// A registration anew ends the lease of the one before.
	second, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: registration()})
	require.NoError(t, err)
	require.NotEqual(t, first.GetLeaseId(), second.GetLeaseId())
	_, err = renew(first.GetLeaseId(), 0)
	refused(t, err, codes.FailedPrecondition, "instance shop/10.0.0.1:443: the registration was replaced by a newer one")
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: change})
	refused(t, err, codes.FailedPrecondition, "replaced by a newer one")

	r.mu.Lock()
	r.clock = r.clock.Add(6 * time.Second)
	r.mu.Unlock()
	_, err = renew(second.GetLeaseId(), 0)
	refused(t, err, codes.Unavailable, "this member has not heard from the leader for 6s and could not pass the renewal on; renew at another member")
	r.pass(0)

	forever := registration()
	forever.Ttl = nil
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: forever})
	require.NoError(t, err)
	_, err = renew(second.GetLeaseId(), 0)
	refused(t, err, codes.FailedPrecondition, "the instance has no lease to renew")

	gone, err := r.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1:443"})
	require.NoError(t, err)
	require.NotZero(t, gone.GetRevision())
	_, err = r.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1:443"})
	refused(t, err, codes.NotFound, "instance shop/10.0.0.1:443: there is no such instance; it is gone already, or 'entente service show' names its address")
	_, err = renew(second.GetLeaseId(), 0)
	refused(t, err, codes.NotFound, "there is no such instance")
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: change})
	refused(t, err, codes.NotFound, "there is no such instance")
	_, err = r.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
	refused(t, err, codes.NotFound, "service shop has no instance")
	require.EqualValues(t, 3, testutil.ToFloat64(r.metrics.renewals.WithLabelValues(renewalTaken)))
}

func TestBadRequests(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	before := r.store.View().Revision()
	for _, call := range []func() error{
		func() error { _, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{}); return err },
		func() error {
			i := registration()
			i.Address = "shop.example.org:443"
			_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
			return err
		},
		func() error {
			_, err := r.RenewInstance(ctx, &ententev1.RenewInstanceRequest{Service: "shop", Address: "10.0.0.1:443"})
			return err
		},
		func() error {
			_, err := r.RenewInstance(ctx, &ententev1.RenewInstanceRequest{Service: "shop", Address: "10.0.0.1:443", LeaseId: leaseNamed(1), Health: 77})
			return err
		},
		func() error {
			_, err := r.RenewInstance(ctx, &ententev1.RenewInstanceRequest{Service: "Shop", Address: "10.0.0.1:443", LeaseId: leaseNamed(1)})
			return err
		},
		func() error {
			_, err := r.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1"})
			return err
		},
		func() error {
			_, err := r.GetService(ctx, &ententev1.GetServiceRequest{Name: "a/b"})
			return err
		},
		func() error { _, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "shop"}); return err },
		func() error {
			_, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "", Locality: caller.Proto()})
			return err
		},
		func() error {
			_, err := r.ListServices(ctx, &ententev1.ListServicesRequest{Read: &ententev1.ReadOptions{Consistency: 9}})
			return err
		},
	} {
		refused(t, call(), codes.InvalidArgument, "")
	}
	require.Equal(t, before, r.store.View().Revision())
}

// Somebody who may register one identity cannot take the address of another's instance, or end it.
func TestOthersInstances(t *testing.T) {
	r := newRoom(t)
	_, err := r.RegisterInstance(admin(t), &ententev1.RegisterInstanceRequest{Instance: registration()})
	require.NoError(t, err)
	other := access.WithCaller(t.Context(), access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.example.org/mallory")))
	_, err = r.RegisterInstance(other, &ententev1.RegisterInstanceRequest{Instance: registration()})
	refused(t, err, codes.PermissionDenied, "")
	_, err = r.DeregisterInstance(other, &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1:443"})
	refused(t, err, codes.PermissionDenied, "")
}

func TestHintFollowsTrustAndHealth(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	ask := func() *ententev1.Hint {
		h, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "shop", Locality: caller.Proto()})
		require.NoError(t, err)
		return h
	}
	require.Equal(t, "no instance is registered", ask().GetReason())

	far := registration()
	far.Address, far.SpiffeId, far.Locality = "10.0.0.2:443", usID.String(), locality("us/a").Proto()
	_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: far})
	require.NoError(t, err)
	h := ask()
	require.Empty(t, h.GetPriorities())
	require.Equal(t, "this cluster has no relationship with us.example.org", h.GetExcluded()[0].GetReason())
	require.Equal(t, "none of 1 instances can be authenticated from here; see what is excluded", h.GetReason())

	r.setTrust(t, "us.example.org", TrustFresh)
	near := registration()
	near.Locality = locality("eu/b").Proto()
	lease, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: near})
	require.NoError(t, err)
	h = ask()
	require.Empty(t, h.GetReason())
	require.Len(t, h.GetPriorities(), 2)
	require.EqualValues(t, 100, h.GetPriorities()[0].GetLoad())
	first := h.GetPriorities()[0].GetLocalities()[0]
	require.EqualValues(t, 100, first.GetShare())
	require.Equal(t, "10.0.0.1:443", first.GetEndpoints()[0].GetAddress())
	require.Equal(t, euID.String(), first.GetEndpoints()[0].GetSpiffeId())

	_, err = r.RenewInstance(ctx, &ententev1.RenewInstanceRequest{Service: "shop", Address: near.GetAddress(), LeaseId: lease.GetLeaseId(), Health: ententev1.Health_HEALTH_UNHEALTHY})
	require.NoError(t, err)
	h = ask()
	require.Zero(t, h.GetPriorities()[0].GetLoad())
	require.Empty(t, h.GetPriorities()[0].GetLocalities(), "what must not be called is listed")
	require.EqualValues(t, 100, h.GetPriorities()[1].GetLoad())
	require.Equal(t, "it is unhealthy", h.GetExcluded()[0].GetReason())

	r.setTrust(t, "us.example.org", TrustExpired)
	h = ask()
	require.True(t, h.GetPriorities()[0].GetPanic(), "the near one is all there is")
	require.Equal(t, "the bundle of us.example.org has expired", h.GetExcluded()[0].GetReason())

	list, err := r.ListServices(ctx, &ententev1.ListServicesRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetServices(), 1)
	require.Len(t, list.GetServices()[0].GetInstances(), 2)
	require.EqualValues(t, 2, testutil.ToFloat64(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "n"}, r.countInstances)))
}

func TestLapsedInstancesAreRemoved(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	register := func(address string) *ententev1.Instance {
		i := registration()
		i.Address = address
		i, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(t, err)
		return i
	}
	kept, lost := register("10.0.0.1:443"), register("10.0.0.2:443")
	section := r.Leases()
	s := sweeper{Manager: r.Manager}
	section.Reset()
	for range 20 {
		_, err := r.RenewInstance(ctx, &ententev1.RenewInstanceRequest{Service: "shop", Address: kept.GetAddress(), LeaseId: kept.GetLeaseId()})
		require.NoError(t, err)
		section.Deliver("eu-1", section.Collect(false))
		s.sweep(ctx)
		r.pass(time.Second)
	}
	shown, err := r.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
	require.NoError(t, err)
	require.Len(t, shown.GetInstances(), 1)
	require.Equal(t, kept.GetAddress(), shown.GetInstances()[0].GetAddress())
	require.EqualValues(t, 1, testutil.ToFloat64(r.metrics.lapsed))
	require.Equal(t, []access.Event{
		{Caller: "routing", Action: "remove instance", Object: "shop/" + lost.GetAddress(), Result: access.ResultBegun, Detail: "its lease of 10s was not renewed"},
		{Caller: "routing", Action: "remove instance", Object: "shop/" + lost.GetAddress(), Result: access.ResultDone, Revision: shown.GetRevision()},
	}, r.audit.events)

	// What cannot be audited is not done.
	r.audit.full = true
	for range 20 {
		s.sweep(ctx)
		r.pass(time.Second)
	}
	_, err = r.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
	require.NoError(t, err)
	r.audit.full = false
	s.sweep(ctx)
	_, err = r.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
	refused(t, err, codes.NotFound, "service shop has no instance")
}

func TestServiceIsBounded(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	_, err := r.store.Update(ctx, func(tx *raftstore.Tx) error {
		for n := range maxInstances {
			i, err := ParseInstance(registration())
			require.NoError(t, err)
			a, err := ParseAddress(net.JoinHostPort("10.0.0.1", "1"))
			require.NoError(t, err)
			i.Address = addrAt(a, n)
			if err := Instances.Put(tx, i.Key(), i.Row()); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	one := registration()
	one.Address = "10.9.9.9:443"
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: one})
	refused(t, err, codes.ResourceExhausted, "service shop has 2048 instances, which is the most; deregister some, or split it into two services")
	one.Address = "10.0.0.1:1"
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: one})
	require.NoError(t, err, "one that is there already is replaced")
}

func TestRun(t *testing.T) {
	r := newRoom(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	cancel()
	require.NoError(t, <-done)
	_, err := New(Config{})
	require.Error(t, err)
}

func BenchmarkPlan(b *testing.B) {
	var list []Endpoint
	a, err := ParseAddress("10.0.0.1:1")
	require.NoError(b, err)
	for n := range 100 {
		list = append(list, Endpoint{
			Address: addrAt(a, n), ID: euID, Locality: Locality{Region: "eu", Zone: string(rune('a' + n%5))},
			Weight: 1, Health: Healthy, Trust: TrustFresh,
		})
	}
	p := DefaultPolicy()
	for b.Loop() {
		p.Plan(caller, list)
	}
}

// addrAt returns the n-th port after that of an address.
func addrAt(a netip.AddrPort, n int) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), a.Port()+uint16(n))
}
