package routing

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// holder is a control plane with its stream.
type holder struct {
	t      *testing.T
	stream ententev1.RoutingService_HoldLeaseClient
	lease  *ententev1.Lease
	secret string
}

func (r *room) hold(t *testing.T, caller access.Caller, open *ententev1.OpenLease) (*holder, error) {
	t.Helper()
	stream, err := r.dial(t, caller).HoldLease(t.Context())
	require.NoError(t, err)
	h := &holder{t: t, stream: stream}
	answer, err := h.ask(&ententev1.HoldLeaseRequest{Open: open})
	h.lease, h.secret = answer.GetLease(), answer.GetSecret()
	return h, err
}

func (h *holder) ask(m *ententev1.HoldLeaseRequest) (*ententev1.HoldLeaseResponse, error) {
	h.t.Helper()
	if err := h.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		require.NoError(h.t, err)
	}
	return h.stream.Recv()
}

func tenSeconds() *ententev1.OpenLease {
	return &ententev1.OpenLease{Ttl: durationpb.New(10 * time.Second), GoneAfter: durationpb.New(time.Minute)}
}

var (
	plane   = access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.example.org/plane"))
	mallory = access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.example.org/mallory"))
)

// sweeps lets the leader look once a second.
func (r *room) sweeps(t *testing.T, s *sweeper, seconds int, each func()) {
	t.Helper()
	for range seconds {
		if each != nil {
			each()
		}
		section := r.Leases()
		if b := section.Collect(false); b != nil {
			section.Deliver("eu-1", b)
		}
		s.sweep(t.Context())
		r.pass(time.Second)
	}
}

func (r *room) health(t *testing.T, address string) (health string, exists bool) {
	t.Helper()
	s, err := r.catalog.service(r.store.View(), "shop")
	require.NoError(t, err)
	for _, i := range s.instances {
		if i.Address.String() == address {
			return i.Health.String(), true
		}
	}
	return "", false
}

// TestLease goes through the life of a lease: it is kept without a write, runs out in one row, is taken up again by its holder
// alone, and when it is gone nothing of it stays.
func TestLease(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	h, err := r.hold(t, access.SocketCaller(0, 1), tenSeconds())
	require.NoError(t, err)
	require.Len(t, h.secret, 32)
	require.NotContains(t, h.secret, h.lease.GetId())
	one, two := registration(), registration()
	one.Lease, two.Lease, two.Address = h.secret, h.secret, "10.0.0.2:443"
	for _, i := range []*ententev1.Instance{one, two} {
		made, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(t, err)
		require.Equal(t, h.lease.GetId(), made.GetLease(), "the secret is shown, or another lease")
	}
	s := &sweeper{Manager: r.Manager}
	r.Leases().Reset()
	revision := r.store.View().Revision()
	r.sweeps(t, s, 30, func() {
		_, err := h.ask(&ententev1.HoldLeaseRequest{})
		require.NoError(t, err)
	})
	require.Equal(t, revision, r.store.View().Revision(), "a renewal was written")
	require.GreaterOrEqual(t, testutil.ToFloat64(r.metrics.renewals.WithLabelValues(renewalTaken)), 30.0)

	_, err = h.ask(&ententev1.HoldLeaseRequest{Health: []*ententev1.HealthChange{
		{Service: "shop", Address: "10.0.0.1:443", Health: ententev1.Health_HEALTH_DEGRADED},
		{Service: "shop", Address: "10.0.0.2:443", Health: ententev1.Health_HEALTH_DRAINING},
	}})
	require.NoError(t, err)
	health, _ := r.health(t, "10.0.0.1:443")
	require.Equal(t, "degraded", health)
	require.Equal(t, "shop 10.0.0.1:443 degraded, shop 10.0.0.2:443 draining", r.audit.events[1].Detail)
	require.Equal(t, access.ResultDone, r.audit.events[1].Result)

	// It runs out.
	revision = r.store.View().Revision()
	r.sweeps(t, s, 15, nil)
	require.Equal(t, revision+1, r.store.View().Revision(), "more than one row was written, or none")
	health, _ = r.health(t, "10.0.0.1:443")
	require.Equal(t, "unhealthy", health)
	hint, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "shop", Locality: euCaller.Proto()})
	require.NoError(t, err)
	require.True(t, hint.GetPriorities()[0].GetPanic(), "all are unhealthy, and nobody else is there")

	// Nobody else takes it up again; who took it does, with all that it has.
	_, err = r.hold(t, plane, &ententev1.OpenLease{Ttl: durationpb.New(10 * time.Second), Secret: h.secret})
	refused(t, err, codes.PermissionDenied, "was taken by somebody else")
	_, err = r.hold(t, access.SocketCaller(0, 1), &ententev1.OpenLease{Ttl: durationpb.New(10 * time.Second), Secret: leaseNamed(1) + leaseNamed(2)})
	refused(t, err, codes.NotFound, "there is no such lease")
	again, err := r.hold(t, access.SocketCaller(0, 7), &ententev1.OpenLease{Ttl: durationpb.New(10 * time.Second), GoneAfter: durationpb.New(time.Minute), Secret: h.secret})
	require.NoError(t, err)
	require.Equal(t, h.lease.GetId(), again.lease.GetId())
	health, _ = r.health(t, "10.0.0.1:443")
	require.Equal(t, "degraded", health)

	// It runs out again, and for good.
	r.sweeps(t, s, 80, nil)
	_, exists := r.health(t, "10.0.0.1:443")
	require.False(t, exists)
	left, err := Instances.List(r.store.View(), "")
	require.NoError(t, err)
	require.Empty(t, left, "rows of a lease that is gone stay")
	_, err = again.ask(&ententev1.HoldLeaseRequest{})
	refused(t, err, codes.NotFound, "is gone, with all its instances")
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: one})
	refused(t, err, codes.NotFound, "there is no such lease, or no longer")
}

// TestTheNewestStreamHoldsALease: a control plane that lost its connection takes the lease up again before the member has
// noticed, and what is left of the old stream can neither renew, change nor release it.
func TestTheNewestStreamHoldsALease(t *testing.T) {
	r := newRoom(t)
	first, err := r.hold(t, plane, tenSeconds())
	require.NoError(t, err)
	open := tenSeconds()
	open.Secret = first.secret
	second, err := r.hold(t, plane, open)
	require.NoError(t, err)
	require.Equal(t, first.lease.GetId(), second.lease.GetId())
	_, err = first.ask(&ententev1.HoldLeaseRequest{Release: true})
	refused(t, err, codes.Aborted, "another stream has taken up the lease "+first.lease.GetId())
	_, err = second.ask(&ententev1.HoldLeaseRequest{})
	require.NoError(t, err)
	open.Secret = first.secret
	_, err = r.hold(t, mallory, open)
	refused(t, err, codes.PermissionDenied, "was taken by somebody else")
	_, err = second.ask(&ententev1.HoldLeaseRequest{Release: true})
	require.NoError(t, err)
}

// TestALeaseThatIsTakenUpUnderTheSweepStays: what was decided on what a lease was is not done to what it is.
func TestALeaseThatIsTakenUpUnderTheSweepStays(t *testing.T) {
	r := newRoom(t)
	h, err := r.hold(t, plane, tenSeconds())
	require.NoError(t, err)
	s := &sweeper{Manager: r.Manager}
	lapsed := func() bool {
		row, found, err := Leases.Get(r.store.View(), h.lease.GetId())
		require.NoError(t, err)
		require.True(t, found)
		return row.Value.GetLapseTime() != nil
	}
	takeUp := func() {
		open := tenSeconds()
		open.Secret = h.secret
		_, err := r.hold(t, plane, open)
		require.NoError(t, err)
	}
	require.NoError(t, s.look(r.store.View()))
	takeUp()
	require.NoError(t, s.change(t.Context(), s.table, "lease runs out", markLapsed(time.Now())))
	require.False(t, lapsed())
	require.NoError(t, s.look(r.store.View()))
	require.NoError(t, s.change(t.Context(), s.table, "lease runs out", markLapsed(time.Now())))
	require.True(t, lapsed())
	require.NoError(t, s.look(r.store.View()))
	takeUp()
	require.NoError(t, s.change(t.Context(), s.table, "remove lease", removeLapsed))
	require.False(t, lapsed(), "it is there, and held")
}

func TestLeaseIsReleased(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	h, err := r.hold(t, access.SocketCaller(0, 1), tenSeconds())
	require.NoError(t, err)
	one := registration()
	one.Lease = h.secret
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: one})
	require.NoError(t, err)
	list, err := r.ListLeases(ctx, &ententev1.ListLeasesRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetLeases(), 1)
	require.EqualValues(t, 1, list.GetLeases()[0].GetInstances())
	require.Equal(t, "the local administrator", list.GetLeases()[0].GetOwner())
	_, err = h.ask(&ententev1.HoldLeaseRequest{Release: true})
	require.NoError(t, err)
	_, exists := r.health(t, "10.0.0.1:443")
	require.False(t, exists)
}

// What a registration under another lease replaces is gone with it: a control plane that lost its secret starts again.
func TestNewestRegistrationStands(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	first, err := r.hold(t, access.SocketCaller(0, 1), tenSeconds())
	require.NoError(t, err)
	second, err := r.hold(t, access.SocketCaller(0, 1), tenSeconds())
	require.NoError(t, err)
	for _, secret := range []string{first.secret, second.secret, ""} {
		i := registration()
		i.Lease = secret
		_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(t, err)
		service, err := r.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
		require.NoError(t, err)
		require.Len(t, service.GetInstances(), 1)
	}
}

func TestBadLeases(t *testing.T) {
	r := newRoom(t)
	for _, test := range []struct {
		open *ententev1.OpenLease
		want string
	}{
		{nil, "the first message of a lease has to open it"},
		{&ententev1.OpenLease{}, "not a lease: a ttl of 0s; 5s to 24h0m0s are allowed"},
		{&ententev1.OpenLease{Ttl: durationpb.New(time.Second)}, "a ttl of 1s"},
		{&ententev1.OpenLease{Ttl: durationpb.New(time.Minute), GoneAfter: durationpb.New(-time.Second)}, "gone_after is -1s; 0s to 168h0m0s are allowed"},
		{&ententev1.OpenLease{Ttl: durationpb.New(time.Minute), Secret: "mine"}, "the secret is not 32 hexadecimal digits"},
	} {
		_, err := r.hold(t, plane, test.open)
		refused(t, err, codes.InvalidArgument, test.want)
	}
	h, err := r.hold(t, plane, tenSeconds())
	require.NoError(t, err)
	_, err = h.ask(&ententev1.HoldLeaseRequest{Health: []*ententev1.HealthChange{{Service: "shop", Address: "10.0.0.1:443", Health: 1}}})
	refused(t, err, codes.FailedPrecondition, "the lease has no instance of shop at 10.0.0.1:443")
	h, err = r.hold(t, plane, tenSeconds())
	require.NoError(t, err)
	r.mu.Lock()
	r.clock = r.clock.Add(6 * time.Second)
	r.mu.Unlock()
	_, err = h.ask(&ententev1.HoldLeaseRequest{})
	refused(t, err, codes.Unavailable, "this member has not heard from the leader for 6s and could not pass the renewal on; turn to another member")
	// Under somebody else's lease nobody registers.
	i := registration()
	i.Lease = h.secret
	_, err = r.dial(t, mallory).RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{Instance: i})
	refused(t, err, codes.PermissionDenied, "was taken by somebody else")
}
