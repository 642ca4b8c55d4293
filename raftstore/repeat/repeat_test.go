package repeat

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

const (
	id     = "6f1c0b52-0a3e-4d39-9d7c-0c8f5f3c1a11"
	method = "/entente.v1.DomainService/CreateDomain"
)

// objects stands for what a room makes.
var objects = raftstore.NewTable[*wrapperspb.StringValue]("objects_of_a_test")

type fixture struct {
	*testing.T
	store *raftstore.Store
	now   time.Time
}

func newFixture(t *testing.T) *fixture {
	return &fixture{t, raftstoretest.New(t), time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
}

func (f *fixture) call(caller, method, domain string) *Call {
	f.Helper()
	c, err := New(f.store, func() time.Time { return f.now }, caller, method, &ententev1.CreateDomainRequest{
		RequestId: id, Domain: &ententev1.Domain{TrustDomain: domain},
	})
	require.NoError(f, err)
	return c
}

// make makes an object in the context of a call.
func (f *fixture) make(ctx context.Context, name string) error {
	Generated(ctx, name)
	_, err := f.store.Update(ctx, func(tx *raftstore.Tx) error {
		return objects.Put(tx, name, wrapperspb.String("made"))
	})
	return err
}

func (f *fixture) earlier(c *Call) *Made {
	f.Helper()
	made, err := c.Earlier(f.store.View())
	require.NoError(f, err)
	return made
}

func TestCall(t *testing.T) {
	f := newFixture(t)
	first := f.call("alice", method, "pay.test")
	require.Nil(t, f.earlier(first))
	require.NoError(t, f.make(first.Context(t.Context()), "one"))
	require.NoError(t, f.make(first.Context(t.Context()), "two"), "one call may run several transactions")
	require.Nil(t, f.earlier(first), "a call does not repeat itself")

	again := f.earlier(f.call("alice", method, "pay.test"))
	require.Equal(t, "one", again.Name)
	require.True(t, f.now.Equal(again.Time))
	require.Nil(t, f.earlier(f.call("bob", method, "pay.test")), "another caller")
	require.Nil(t, f.earlier(f.call("alice", method+"s", "pay.test")), "another method")

	_, err := f.call("alice", method, "shop.test").Earlier(f.store.View())
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.Equal(t, apierror.RequestReused, apierror.Reason(status.Convert(err)))
	require.EqualError(t, err, "rpc error: code = InvalidArgument desc = request_id was used at 2026-11-30T12:00:00Z "+
		"for another request, and nothing is changed by this one: make a new UUID for each call, and use it again "+
		"only to repeat that call")
	err = apierror.Complete(err, &ententev1.CreateDomainRequest{})
	var fields []string
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			fields = append(fields, bad.GetFieldViolations()[0].GetField())
		}
	}
	require.Equal(t, []string{"request_id"}, fields)

	f.now = f.now.Add(Window)
	require.Nil(t, f.earlier(f.call("alice", method, "shop.test")), "the hour is over")
}

func TestWithoutID(t *testing.T) {
	f := newFixture(t)
	c, err := New(f.store, time.Now, "alice", method, &ententev1.CreateDomainRequest{})
	require.NoError(t, err)
	require.Nil(t, c)
	require.NoError(t, f.make(c.Context(t.Context()), "one"))
	require.Nil(t, f.earlier(c))
	c, err = New(f.store, time.Now, "alice", method, &ententev1.ListDomainsRequest{})
	require.NoError(t, err)
	require.Nil(t, c)
	for _, bad := range []string{"1", id + "0", id[1:], "g" + id[1:], id[:8] + id[9:] + "-"} {
		_, err = New(f.store, time.Now, "alice", method, &ententev1.CreateDomainRequest{RequestId: bad})
		require.ErrorContains(t, err, fmt.Sprintf("request_id %q is not a UUID", bad))
	}
}

// Of calls with one id that run at the same time, one makes something.
func TestConcurrentCalls(t *testing.T) {
	f := newFixture(t)
	const calls = 8
	var all sync.WaitGroup
	outcomes := make([]error, calls)
	for i := range calls {
		c := f.call("alice", method, "pay.test")
		require.Nil(t, f.earlier(c))
		all.Go(func() { outcomes[i] = f.make(c.Context(context.Background()), fmt.Sprint(i)) })
	}
	all.Wait()
	made, err := objects.List(f.store.View(), "")
	require.NoError(t, err)
	require.Len(t, made, 1)
	failed := 0
	for _, err := range outcomes {
		if err != nil {
			require.ErrorIs(t, err, errMade)
			failed++
		}
	}
	require.Equal(t, calls-1, failed)
	require.Equal(t, made[0].Key, f.earlier(f.call("alice", method, "pay.test")).Name)
}

// A call that changes nothing leaves no row, and one that fails neither.
func TestNothingMade(t *testing.T) {
	f := newFixture(t)
	c := f.call("alice", method, "pay.test")
	_, err := f.store.Update(c.Context(t.Context()), func(*raftstore.Tx) error { return nil })
	require.NoError(t, err)
	refused := errors.New("refused")
	_, err = f.store.Update(c.Context(t.Context()), func(*raftstore.Tx) error { return refused })
	require.ErrorIs(t, err, refused)
	require.Nil(t, f.earlier(f.call("alice", method, "pay.test")))
}

// A handler that answers a repeated call can make nothing.
func TestAnswering(t *testing.T) {
	f := newFixture(t)
	ctx := Answering(t.Context(), &Made{Name: "one"})
	require.Equal(t, "one", Earlier(ctx).Name)
	require.Nil(t, Earlier(t.Context()))
	require.ErrorContains(t, f.make(ctx, "two"), "report this defect")

	require.NoError(t, Gone(nil))
	require.Equal(t, codes.Internal, status.Code(Gone(status.Error(codes.Internal, "x"))))
	require.ErrorContains(t, Gone(status.Error(codes.NotFound, "x")), "what it made is gone since")
}

func TestBounds(t *testing.T) {
	f := newFixture(t)
	var last string
	for i := range setSize + 3 {
		c := f.call("alice", method, "pay.test")
		c.key, c.id = "alice/000", []byte{byte(i)} // all in one set
		last = fmt.Sprint(i)
		require.NoError(t, f.make(c.Context(t.Context()), last))
	}
	row, _, err := made.Get(f.store.View(), "alice/000")
	require.NoError(t, err)
	require.Len(t, row.Value.GetRequests(), setSize)
	require.Equal(t, last, row.Value.GetRequests()[setSize-1].GetName())

	require.NoError(t, sweep(t.Context(), f.store, f.now.Add(Window-time.Second)))
	rows, err := made.List(f.store.View(), "")
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.NoError(t, sweep(t.Context(), f.store, f.now.Add(Window)))
	rows, err = made.List(f.store.View(), "")
	require.NoError(t, err)
	require.Empty(t, rows)
}
