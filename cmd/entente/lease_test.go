package main

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/clocktest"
)

// registry is a member as far as a lease knows it. It notes what it is asked.
type registry struct {
	ententev1.RoutingServiceClient
	asked  []string
	renews []error // what the next renewals come to; nil after the last
	opens  []error // the same of what opens a stream
}

func (r *registry) RegisterInstance(_ context.Context, m *ententev1.RegisterInstanceRequest, _ ...grpc.CallOption) (*ententev1.Instance, error) {
	r.asked = append(r.asked, "register "+m.GetInstance().GetLease())
	return &ententev1.Instance{Service: "web", Address: "10.0.0.1:443", Lease: "ID"}, nil
}

func (r *registry) HoldLease(ctx context.Context, _ ...grpc.CallOption) (ententev1.RoutingService_HoldLeaseClient, error) {
	return &holding{ctx: ctx, registry: r}, nil
}

// holding is a stream on which a lease is held.
type holding struct {
	ententev1.RoutingService_HoldLeaseClient
	ctx      context.Context
	registry *registry
	sent     *ententev1.HoldLeaseRequest
}

func (h *holding) Send(m *ententev1.HoldLeaseRequest) error {
	h.sent = m
	return nil
}

func (h *holding) Recv() (*ententev1.HoldLeaseResponse, error) {
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
		r.asked = append(r.asked, "open "+h.sent.GetOpen().GetSecret())
		return &ententev1.HoldLeaseResponse{Secret: "L"}, next(&r.opens)
	case h.sent.GetRelease():
		r.asked = append(r.asked, "release")
		return &ententev1.HoldLeaseResponse{}, h.ctx.Err()
	}
	r.asked = append(r.asked, "renew")
	return &ententev1.HoldLeaseResponse{}, next(&r.renews)
}

func TestLease(t *testing.T) {
	away := status.Error(codes.Unavailable, "there is no leader")
	gone := status.Error(codes.NotFound, "no such lease")
	for name, test := range map[string]struct {
		renews, opens []error
		runs          time.Duration
		asked         []string
		said          string
		err           string
	}{
		"renewed three times a lease": {
			runs: 31 * time.Second, asked: []string{"open ", "register L", "renew", "renew", "renew", "release"},
			said: "entente: the instance of web at 10.0.0.1:443 is deregistered\n",
		},
		"an outage is told of once": {
			runs: 41 * time.Second, renews: []error{away}, opens: []error{nil, away, away},
			asked: []string{"open ", "register L", "renew", "open L", "open L", "open L", "renew", "release"},
			said: "entente: the instance of web at 10.0.0.1:443 could not be renewed, and will be tried again: there is no leader\n" +
				"entente: the instance of web at 10.0.0.1:443 is renewed again\n" +
				"entente: the instance of web at 10.0.0.1:443 is deregistered\n",
		},
		"taken up again at once": {
			runs: 21 * time.Second, renews: []error{away}, asked: []string{"open ", "register L", "renew", "open L", "renew", "release"},
			said: "entente: the instance of web at 10.0.0.1:443 is deregistered\n",
		},
		"removed meanwhile": {
			runs: 21 * time.Second, renews: []error{gone}, asked: []string{"open ", "register L", "renew", "open ", "register L", "renew", "release"},
			said: "entente: the instance of web at 10.0.0.1:443 was removed, and is registered again\n" +
				"entente: the instance of web at 10.0.0.1:443 is deregistered\n",
		},
		"not allowed any more": {
			runs: 31 * time.Second, renews: []error{away}, opens: []error{nil, status.Error(codes.PermissionDenied, "revoked")},
			asked: []string{"open ", "register L", "renew", "open L"},
			err:   "rpc error: code = PermissionDenied desc = revoked",
		},
	} {
		t.Run(name, func(t *testing.T) {
			clocktest.Run(t, func(t *testing.T) {
				var said bytes.Buffer
				r := &registry{renews: test.renews, opens: test.opens}
				l := &lease{
					client: r, timeout: time.Second, log: &said, ttl: 30 * time.Second,
					instance: &ententev1.Instance{Service: "web", Address: "10.0.0.1:443"},
				}
				ctx, cancel := context.WithTimeout(t.Context(), test.runs)
				defer cancel()
				err := l.hold(ctx, func(*ententev1.Instance) error { return nil })
				if test.err != "" {
					require.EqualError(t, err, test.err)
				} else {
					require.NoError(t, err)
				}
				require.Equal(t, test.asked, r.asked)
				require.Equal(t, test.said, said.String())
			})
		})
	}
}

func TestSentences(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"the server's own":   {status.Error(codes.NotFound, "there is no x: make one"), "there is no x: make one"},
		"no answer":          {status.FromContextError(context.DeadlineExceeded).Err(), "there was no answer in time: try again, wait longer with --timeout, or ask another member"},
		"interrupted":        {status.FromContextError(context.Canceled).Err(), "interrupted"},
		"nobody there":       {status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`), "cannot reach 127.0.0.1:1: connection refused; check that the member runs and that --address or --socket names it"},
		"a dead socket":      {status.Error(codes.Unavailable, `last connection error: connection error: desc = "transport: Error while dialing: dial unix /d/admin.sock: connect: connection refused"`), "cannot reach /d/admin.sock: connection refused; check that the member runs and that --address or --socket names it"},
		"no such host":       {status.Error(codes.Unavailable, `name resolver error: produced zero addresses`), "name resolver error: produced zero addresses"},
		"no trust":           {status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate"`), "the member and this command do not trust each other: tls: failed to verify certificate; check --cert, --key and --bundle"},
		"a lost connection":  {status.Error(codes.Unavailable, "error reading from server: EOF"), "the member closed the connection: it may be stopping, or not trust the caller any more; try again, or ask another member"},
		"another version":    {status.Error(codes.Unimplemented, "unknown method X"), "the member does not know this command: it runs another version than this one; 'entente cluster members' shows which"},
		"no status":          {errors.New("a thing: failed"), "a thing: failed"},
		"an interrupted run": {context.Canceled, "interrupted"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, sentence(test.err)) })
	}
}

func TestDurations(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"just now": 0, "now": -time.Millisecond, "42s ago": 42 * time.Second, "in 42s": -42 * time.Second, "5m ago": 5*time.Minute + time.Second,
		"3h20m ago": 3*time.Hour + 20*time.Minute, "3h ago": 3 * time.Hour, "in 2d": -49 * time.Hour,
	} {
		require.Equal(t, want, ago(d))
	}
	for want, d := range map[string]time.Duration{"1h": time.Hour, "1m30s": 90 * time.Second, "5m": 5 * time.Minute, "10s": 10 * time.Second, "24h": 24 * time.Hour} {
		require.Equal(t, want, span(durationpb.New(d)))
	}
}

func TestPrintable(t *testing.T) {
	require.Equal(t, "spiffe://eu/é", printable("spiffe://eu/é"))
	require.Equal(t, `a\x1b[2J\nb\u202e`, printable("a\x1b[2J\nb\u202e"))
}
