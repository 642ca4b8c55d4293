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
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/trust"
)

// trustTable holds the state of each foreign domain as a row, so that hints can be watched as in production.
var trustTable = raftstore.NewTable[*statev1.Instance]("routing_test_trust")

type tableTrust struct{}

func (tableTrust) State(r raftstore.Reader, td spiffeid.TrustDomain) (trust.State, error) {
	if td.Name() == "eu.example.org" {
		return trust.Fresh, nil
	}
	row, found, err := trustTable.Get(r, td.Name())
	if err != nil || !found {
		return trust.Unknown, err
	}
	return trust.State(row.Value.GetWeight()), nil
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

// sightKey is where tests put what a caller sees; without it, that is everything.
type sightKey struct{}

func newRoom(t *testing.T) *room {
	t.Helper()
	r := &room{audit: &auditLog{}, reg: prometheus.NewRegistry(), clock: epoch, heard: epoch}
	m, err := New(Config{
		Store: raftstoretest.New(t), Trust: tableTrust{}, Audit: r.audit, Registerer: r.reg,
		Sight: func(ctx context.Context) access.Scope {
			if sight, ok := ctx.Value(sightKey{}).(access.Scope); ok {
				return sight
			}
			return everything
		},
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

func (r *room) setTrust(t *testing.T, td string, state trust.State) {
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

func TestRegisterAndDeregister(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	first, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: registration()})
	require.NoError(t, err)
	require.Empty(t, first.GetLease())
	require.NotZero(t, first.GetRevision())
	require.EqualValues(t, 1, first.GetWeight())
	require.Equal(t, ententev1.Health_HEALTH_HEALTHY, first.GetHealth())
	require.Equal(t, epoch, first.GetRegisterTime().AsTime())
	r.pass(time.Second)
	again, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: registration()})
	require.NoError(t, err)
	require.Equal(t, first.GetRevision(), again.GetRevision(), "the same once more was written")
	change := registration()
	change.Weight = 7
	changed, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: change})
	require.NoError(t, err)
	require.EqualValues(t, 7, changed.GetWeight())

	gone, err := r.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1:443"})
	require.NoError(t, err)
	require.NotZero(t, gone.GetRevision())
	_, err = r.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1:443"})
	refused(t, err, codes.NotFound, "service shop has no instance at 10.0.0.1:443; it is gone already, or 'entente service show shop' names its address")
	_, err = r.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
	refused(t, err, codes.NotFound, "service shop has no instance")
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
			_, err := r.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1"})
			return err
		},
		func() error {
			_, err := r.GetService(ctx, &ententev1.GetServiceRequest{Name: "a/b"})
			return err
		},
		func() error {
			i := registration()
			i.SpiffeId = "spiffe://eu.example.org/entente/member/eu-1"
			_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
			return err
		},
		func() error {
			i := registration()
			i.Lease = "mine"
			_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
			return err
		},
		func() error { _, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "shop"}); return err },
		func() error {
			_, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "", Locality: euCaller.Proto()})
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
		h, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "shop", Locality: euCaller.Proto()})
		require.NoError(t, err)
		return h
	}
	require.Equal(t, "no instance is registered", ask().GetReason())

	far := registration()
	far.Address, far.SpiffeId, far.Locality = "10.0.0.2:443", usWorkload.String(), &ententev1.Locality{Region: "us", Zone: "a"}
	_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: far})
	require.NoError(t, err)
	h := ask()
	require.Empty(t, h.GetPriorities())
	require.Equal(t, "us.example.org is neither hosted here nor federated with; 'entente federation create us.example.org' creates a relationship",
		h.GetExcluded()[0].GetReason())
	require.Equal(t, "none of 1 instances can be authenticated from here; see what is excluded", h.GetReason())

	r.setTrust(t, "us.example.org", trust.Fresh)
	near := registration()
	near.Locality = &ententev1.Locality{Region: "eu", Zone: "b"}
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: near})
	require.NoError(t, err)
	h = ask()
	require.Empty(t, h.GetReason())
	require.Len(t, h.GetPriorities(), 2)
	require.EqualValues(t, 100, h.GetPriorities()[0].GetLoad())
	first := h.GetPriorities()[0].GetLocalities()[0]
	require.EqualValues(t, 100, first.GetShare())
	require.Equal(t, "10.0.0.1:443", first.GetEndpoints()[0].GetAddress())
	require.Equal(t, euWorkload.String(), first.GetEndpoints()[0].GetSpiffeId())

	near.Health = ententev1.Health_HEALTH_UNHEALTHY
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: near})
	require.NoError(t, err)
	h = ask()
	require.Zero(t, h.GetPriorities()[0].GetLoad())
	require.Empty(t, h.GetPriorities()[0].GetLocalities(), "what must not be called is listed")
	require.EqualValues(t, 100, h.GetPriorities()[1].GetLoad())
	require.Equal(t, "it is unhealthy", h.GetExcluded()[0].GetReason())

	r.setTrust(t, "us.example.org", trust.Expired)
	h = ask()
	require.True(t, h.GetPriorities()[0].GetPanic(), "the near one is all there is")
	require.Equal(t, "the bundle of us.example.org has expired; see 'entente federation show us.example.org'", h.GetExcluded()[0].GetReason())

	list, err := r.ListServices(ctx, &ententev1.ListServicesRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetServices(), 1)
	require.Len(t, list.GetServices()[0].GetInstances(), 2)
	r.pass(countEvery)
	require.EqualValues(t, 2, testutil.ToFloat64(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "n"}, r.countInstances)))
}

func TestServiceIsBounded(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	_, err := r.store.Update(ctx, func(tx *raftstore.Tx) error {
		for n := range maxInstances {
			i, err := ParseInstance(registration())
			require.NoError(t, err)
			a, err := plan.ParseAddress(net.JoinHostPort("10.0.0.1", "1"))
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
	refused(t, err, codes.ResourceExhausted, "service shop has 4000 instances, and 1 more would pass the most, 4000; deregister some, or split it into two services")
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

var (
	euCaller   = plan.Locality{Region: "eu", Zone: "a", SubZone: "1"}
	euWorkload = spiffeid.RequireFromString("spiffe://eu.example.org/shop")
	usWorkload = spiffeid.RequireFromString("spiffe://us.example.org/shop")
)

// addrAt returns the n-th port after that of an address.
func addrAt(a netip.AddrPort, n int) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), a.Port()+uint16(n))
}
