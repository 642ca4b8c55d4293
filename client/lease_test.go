package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/clocktest"
)

// registry is a member as a lease sees it. It records the requests.
type registry struct {
	ententev1.RoutingServiceClient
	requests []string
	renews   []error // results of the next renewals; nil after the last
	last     *ententev1.Instance
	opens    []error // the same for streams that are opened
	// lost are in the answers to renewals; refuses is the error of all registrations but the first.
	lost    []*ententev1.LostInstance
	refuses error
}

func (r *registry) RegisterInstance(
	_ context.Context,
	m *ententev1.RegisterInstanceRequest,
	_ ...grpc.CallOption,
) (*ententev1.Instance, error) {
	r.requests = append(r.requests, "register "+m.GetInstance().GetLease())
	if r.last != nil && r.refuses != nil {
		return nil, r.refuses
	}
	r.last = m.GetInstance()
	return &ententev1.Instance{Service: "web", Address: "10.0.0.1:443", Lease: "ID"}, nil
}

func (r *registry) KeepLease(
	ctx context.Context,
	_ ...grpc.CallOption,
) (ententev1.RoutingService_KeepLeaseClient, error) {
	return &holding{ctx: ctx, registry: r}, nil
}

// holding is the stream of a lease.
type holding struct {
	ententev1.RoutingService_KeepLeaseClient
	ctx      context.Context
	registry *registry
	sent     *ententev1.KeepLeaseRequest
}

func (h *holding) Send(m *ententev1.KeepLeaseRequest) error {
	h.sent = m
	return nil
}

func (h *holding) Recv() (*ententev1.KeepLeaseResponse, error) {
	r := h.registry
	next := func(list *[]error) error {
		if len(*list) == 0 {
			return h.ctx.Err()
		}
		err := (*list)[0]
		*list = (*list)[1:]
		return err
	}
	switch {
	case h.sent.GetOpen() != nil:
		r.requests = append(r.requests, "open "+h.sent.GetOpen().GetSecret())
		return &ententev1.KeepLeaseResponse{Secret: "L"}, next(&r.opens)
	case h.sent.GetRelease():
		r.requests = append(r.requests, "release")
		return &ententev1.KeepLeaseResponse{}, h.ctx.Err()
	}
	for _, c := range h.sent.GetHealth() {
		r.requests = append(r.requests, "health "+c.GetHealth().String())
		return &ententev1.KeepLeaseResponse{}, next(&r.renews)
	}
	r.requests = append(r.requests, "renew")
	return &ententev1.KeepLeaseResponse{Lost: r.lost}, next(&r.renews)
}

func TestLease(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "there is no leader")
	gone := status.Error(codes.NotFound, "no such lease")
	for name, test := range map[string]struct {
		renews, opens []error
		runs          time.Duration
		requests      []string
		events        []string
		err           string
		lost          []*ententev1.LostInstance
		refuses       error
	}{
		"taken over": {
			runs:     11 * time.Second,
			lost:     []*ententev1.LostInstance{{Service: "web", Address: "10.0.0.1:443", By: "spiffe://eu.test/b"}},
			requests: []string{"open ", "register L", "renew", "release"},
			events:   []string{"was taken over by spiffe://eu.test/b (web at 10.0.0.1:443)"},
			err: "the instance of web at 10.0.0.1:443 was taken over by spiffe://eu.test/b: no instance of the lease " +
				"is left",
		},
		"removed by another": {
			runs:     11 * time.Second,
			lost:     []*ententev1.LostInstance{{Service: "web", Address: "10.0.0.1:443", Removed: true}},
			requests: []string{"open ", "register L", "renew", "release"},
			events:   []string{"was removed by another caller (web at 10.0.0.1:443)"},
			err: "the instance of web at 10.0.0.1:443 was removed by another caller: no instance of the lease " +
				"is left",
		},
		"lost what it never had": {
			runs:     21 * time.Second,
			lost:     []*ententev1.LostInstance{{Service: "web", Address: "10.0.0.9:443"}},
			requests: []string{"open ", "register L", "renew", "renew", "release"},
		},
		"held by another after an outage": {
			runs: 11 * time.Second, renews: []error{gone},
			refuses:  status.Error(codes.FailedPrecondition, "the lease 7 of b holds it"),
			requests: []string{"open ", "register L", "renew", "open ", "register L", "release"},
			events: []string{
				"was removed, and is registered again",
				"was taken over: the lease 7 of b holds it (web at 10.0.0.1:443)",
			},
			err: "the instance of web at 10.0.0.1:443 was taken over: the lease 7 of b holds it: no instance of the " +
				"lease is left",
		},

		"renewed three times a lease": {
			runs: 31 * time.Second, requests: []string{"open ", "register L", "renew", "renew", "renew", "release"},
		},
		"an outage is reported once": {
			runs: 41 * time.Second, renews: []error{unavailable}, opens: []error{nil, unavailable, unavailable},
			requests: []string{"open ", "register L", "renew", "open L", "open L", "open L", "renew", "release"},
			events:   []string{"could not be renewed, and is retried: there is no leader", "is renewed again"},
		},
		"taken up again at once": {
			runs: 21 * time.Second, renews: []error{unavailable},
			requests: []string{"open ", "register L", "renew", "open L", "renew", "release"},
		},
		"removed meanwhile": {
			runs: 21 * time.Second, renews: []error{gone},
			requests: []string{"open ", "register L", "renew", "open ", "register L", "renew", "release"},
			events:   []string{"was removed, and is registered again"},
		},
		"not allowed any more": {
			runs: 31 * time.Second, renews: []error{unavailable},
			opens:    []error{nil, status.Error(codes.PermissionDenied, "revoked")},
			requests: []string{"open ", "register L", "renew", "open L"},
			err:      "rpc error: code = PermissionDenied desc = revoked",
		},
	} {
		t.Run(name, func(t *testing.T) {
			clocktest.Run(t, func(t *testing.T) {
				var got events
				r := &registry{renews: test.renews, opens: test.opens, lost: test.lost, refuses: test.refuses}
				l, err := newLease(
					t.Context(),
					r,
					LeaseConfig{TTL: 30 * time.Second, CallTimeout: time.Second, OnEvent: got.add},
					&ententev1.Instance{Service: "web", Address: "10.0.0.1:443"},
				)
				require.NoError(t, err)
				require.Equal(t, "ID", l.Instances()[0].GetLease())
				<-time.After(test.runs)
				synctest.Wait()
				if test.err != "" {
					<-l.Done()
					require.EqualError(t, l.Err(), test.err)
				} else {
					require.NoError(t, l.Err())
				}
				require.NoError(t, l.Close(t.Context()))
				require.Equal(t, test.requests, r.requests)
				require.Equal(t, test.events, got.all())
				require.ErrorContains(
					t,
					l.SetHealth(t.Context(), "web", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY),
					"the lease ",
				)
			})
		})
	}
}

func TestLeaseSetHealth(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		r := &registry{renews: []error{nil, status.Error(codes.NotFound, "no such lease")}}
		l, err := newLease(t.Context(), r, LeaseConfig{TTL: 30 * time.Second},
			&ententev1.Instance{Service: "web", Address: "10.0.0.1:443"})
		require.NoError(t, err)
		require.NoError(t, l.SetHealth(t.Context(), "web", "10.0.0.1:443", ententev1.Health_HEALTH_DRAINING))
		require.EqualError(t, l.SetHealth(t.Context(), "web", "10.0.0.2:443", ententev1.Health_HEALTH_DRAINING),
			"the lease has no instance of web at 10.0.0.2:443")
		<-time.After(11 * time.Second)
		synctest.Wait()
		require.Equal(t, ententev1.Health_HEALTH_DRAINING, r.last.GetHealth(), "it is registered again with its "+
			"new health")
		require.NoError(t, l.Close(t.Context()))
		require.Equal(t, []string{
			"open ", "register L", "health HEALTH_DRAINING", "renew", "open ", "register L", "release",
		}, r.requests)
	})
}

// A lease that is closed with an ended context is not given up: its instances stay until it runs out.
func TestLeaseCloseWithoutRelease(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		r := &registry{}
		l, err := newLease(t.Context(), r, LeaseConfig{TTL: 30 * time.Second}, &ententev1.Instance{Service: "web"})
		require.NoError(t, err)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, l.Close(ended), context.Canceled)
		require.Equal(t, []string{"open ", "register L"}, r.requests)
	})
}

func TestNewLeaseFails(t *testing.T) {
	_, err := newLease(t.Context(), &registry{}, LeaseConfig{})
	require.EqualError(t, err, "the TTL of the lease must be above zero")
	r := &registry{opens: []error{status.Error(codes.PermissionDenied, "no role")}}
	_, err = newLease(t.Context(), r, LeaseConfig{TTL: time.Second})
	require.EqualError(t, err, "rpc error: code = PermissionDenied desc = no role")
}
