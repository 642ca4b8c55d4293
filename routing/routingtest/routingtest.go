// Package routingtest provides what the tests of routing and of the packages below it have in common.
package routingtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ententehq/entente/access/audit"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Epoch is the time at which a [Clock] starts.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Callers of tests.
var (
	Local   = access.SocketCaller(0, 1)
	Plane   = access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.example.org/plane"))
	Mallory = access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.example.org/mallory"))
)

// Clock is a clock that stands still until it is moved. It includes the time of the last contact with the leader.
type Clock struct {
	mu           sync.Mutex
	now, contact time.Time
}

// NewClock returns a clock that shows [Epoch].
func NewClock() *Clock { return &Clock{now: Epoch, contact: Epoch} }

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// LastContact returns the time of the last contact with the leader.
func (c *Clock) LastContact() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.contact
}

// Pass moves the clock, with contact to the leader.
func (c *Clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.contact = c.now
}

// Isolate moves the clock without contact to the leader.
func (c *Clock) Isolate(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// AuditLog keeps events in memory.
type AuditLog struct {
	mu     sync.Mutex
	events []audit.Event
	full   bool
}

// Record adds an event, or fails if the log is full.
func (a *AuditLog) Record(e audit.Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.full {
		return errors.New("no space left on device")
	}
	a.events = append(a.events, e)
	return nil
}

// Fill makes every further Record fail, or succeed again.
func (a *AuditLog) Fill(full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.full = full
}

// Events returns what was recorded.
func (a *AuditLog) Events() []audit.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]audit.Event{}, a.events...)
}

// Admin returns the context of a call by the local administrator.
func Admin(t testing.TB) context.Context { return access.WithCaller(t.Context(), Local) }

// Refused asserts the code of an error, and that its message contains a text.
func Refused(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	require.ErrorContains(t, err, text)
	require.Equal(t, code, status.Code(err), err.Error())
}

// Registration returns an instance of the service shop in eu.example.org.
func Registration() *ententev1.Instance {
	return &ententev1.Instance{
		Service: "shop", Address: "10.0.0.1:443", Locality: &ententev1.Locality{Region: "eu", Zone: "a"},
		SpiffeId: "spiffe://eu.example.org/shop",
	}
}

// Several returns n instances of a service with a weight, at addresses from 10.0.0.0:443.
func Several(service string, n int, weight uint32) []*ententev1.Instance {
	var list []*ententev1.Instance
	for k := range n {
		i := Registration()
		i.Service, i.Weight = service, weight
		i.Address = fmt.Sprintf("10.%d.%d.%d:443", k>>16&255, k>>8&255, k&255)
		list = append(list, i)
	}
	return list
}

// Eventually waits until a condition holds that no table shows. The timeout is for an overloaded machine.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("timed out while waiting for %s", what)
		}
	}
}

// Dial returns a client of a server, over a connection on which the caller is authenticated.
func Dial(t testing.TB, server ententev1.RoutingServiceServer, caller access.Caller) ententev1.RoutingServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	s := grpc.NewServer(
		grpc.UnaryInterceptor(
			func(ctx context.Context, m any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
				return h(access.WithCaller(ctx, caller), m)
			},
		),
		grpc.StreamInterceptor(
			func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
				return h(srv, callerStream{stream, access.WithCaller(stream.Context(), caller)})
			},
		),
	)
	ententev1.RegisterRoutingServiceServer(s, server)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(listener) })
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	conn, err := grpc.NewClient(
		"passthrough:///routing",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) },
		),
	)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return ententev1.NewRoutingServiceClient(conn)
}

type callerStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s callerStream) Context() context.Context { return s.ctx }
