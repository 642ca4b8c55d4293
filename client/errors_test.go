package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
)

func TestErrorKinds(t *testing.T) {
	all := []error{
		ErrUnavailable, ErrNoLeader, ErrStarting, ErrUnknownOutcome, ErrDenied, ErrUnauthenticated, ErrNotFound,
		ErrAlreadyExists, ErrConflict, ErrEtagMismatch, ErrFailedPrecondition,
		ErrDeletionProtected, ErrInvalidArgument, ErrExhausted,
		ErrWatchRestart, ErrUnimplemented, ErrBundleEndpoint, context.Canceled, context.DeadlineExceeded,
	}
	for name, test := range map[string]struct {
		err  error
		want []error
	}{
		"a reason": {
			apierror.New(codes.Unavailable, apierror.NoLeader, "no leader"),
			[]error{ErrNoLeader, ErrUnavailable},
		},
		"starting": {
			apierror.New(codes.Unavailable, apierror.Starting, "starting"), []error{ErrStarting, ErrUnavailable},
		},
		"a write of unknown outcome": {
			apierror.New(codes.Unknown, apierror.UnknownOutcome, "read first"), []error{ErrUnknownOutcome},
		},
		"a watch that missed changes": {
			apierror.New(codes.OutOfRange, apierror.WatchRestart, "read again"), []error{ErrWatchRestart},
		},
		"an etag that moved": {
			apierror.New(codes.Aborted, apierror.EtagMismatch, "changed"), []error{ErrEtagMismatch, ErrConflict},
		},
		"a code alone":   {status.Error(codes.Aborted, "changed"), []error{ErrConflict}},
		"no connection":  {status.Error(codes.Unavailable, "connection error"), []error{ErrUnavailable}},
		"canceled":       {status.Error(codes.Canceled, "canceled"), []error{context.Canceled}},
		"a deadline":     {status.Error(codes.DeadlineExceeded, "late"), []error{context.DeadlineExceeded}},
		"another":        {status.Error(codes.DataLoss, "lost"), nil},
		"not of gRPC":    {errors.New("broken"), nil},
		"wrapped before": {fmt.Errorf("read: %w", wrap(status.Error(codes.NotFound, "gone"))), []error{ErrNotFound}},
	} {
		t.Run(name, func(t *testing.T) {
			err := wrap(test.err)
			require.Equal(t, status.Code(test.err), status.Code(err))
			for _, kind := range all {
				assert.Equal(t, contains(test.want, kind), errors.Is(err, kind), "is %v", kind)
			}
		})
	}
	require.NoError(t, wrap(nil))
	require.Equal(t, io.EOF, wrap(io.EOF))
}

func TestEtags(t *testing.T) {
	err := wrap(apierror.NewWith(codes.Aborted, apierror.EtagMismatch, map[string]string{
		apierror.RequestedEtag: "3", apierror.CurrentEtag: "5",
	}, "changed"))
	var failed *Error
	require.ErrorAs(t, err, &failed)
	requested, current := failed.Etags()
	require.Equal(t, []string{"3", "5"}, []string{requested, current})
}

func contains(list []error, err error) bool {
	return slices.Contains(list, err)
}

// A write that left and was not answered has an unknown outcome; nothing else has.
func TestUnansweredWrite(t *testing.T) {
	sent := func(err error) grpc.UnaryInvoker {
		return func(_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, options ...grpc.CallOption) error {
			for _, o := range options {
				if p, ok := o.(grpc.PeerCallOption); ok {
					p.PeerAddr.Addr = &net.UnixAddr{}
				}
			}
			return err
		}
	}
	unsent := func(err error) grpc.UnaryInvoker {
		return func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return err }
	}
	broken := status.Error(codes.Unavailable, "error reading from server: EOF")
	for name, test := range map[string]struct {
		method  string
		call    grpc.UnaryInvoker
		unknown bool
	}{
		"a broken connection":       {ententev1.DomainService_UpdateDomain_FullMethodName, sent(broken), true},
		"no connection":             {ententev1.DomainService_UpdateDomain_FullMethodName, unsent(broken), false},
		"a broken read":             {ententev1.DomainService_GetDomain_FullMethodName, sent(broken), false},
		"a broken call for an SVID": {ententev1.SVIDService_IssueX509SVID_FullMethodName, sent(broken), false},
		"a deadline": {
			ententev1.AccessService_GrantRole_FullMethodName,
			sent(status.FromContextError(context.DeadlineExceeded).Err()), true,
		},
		"an end by the caller": {
			ententev1.RoutingService_RegisterInstance_FullMethodName,
			sent(status.FromContextError(context.Canceled).Err()), true,
		},
		"a member without leader": {
			ententev1.DomainService_UpdateDomain_FullMethodName,
			sent(apierror.New(codes.Unavailable, apierror.NoLeader, "no leader")), false,
		},
		"a refusal": {
			ententev1.DomainService_UpdateDomain_FullMethodName, sent(status.Error(codes.NotFound, "no domain")), false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := wrapUnary(t.Context(), test.method, nil, nil, nil, test.call)
			require.Equal(t, test.unknown, errors.Is(err, ErrUnknownOutcome))
			require.Equal(t, test.unknown, strings.HasSuffix(err.Error(), "; the request had left and no answer "+
				"arrived, so that whether the write was made is not known: read the resource before trying again"))
			if test.unknown {
				require.False(t, transient(err), "the client must not repeat it by itself")
			}
		})
	}
}

// brokenStream is a stream whose answer is an error.
type brokenStream struct {
	grpc.ClientStream
	err error
}

func (s brokenStream) SendMsg(any) error { return nil }
func (s brokenStream) RecvMsg(any) error { return s.err }
func (s brokenStream) CloseSend() error  { return nil }

// A stream that is one write has an unknown outcome if it breaks after all of it was sent: a member makes the write
// once it has all of it.
func TestUnansweredStream(t *testing.T) {
	broken := status.Error(codes.Unavailable, "error reading from server: EOF")
	replace, lease := ententev1.RoutingService_ReplaceInstances_FullMethodName,
		ententev1.RoutingService_KeepLease_FullMethodName
	for name, test := range map[string]struct {
		method            string
		err               error
		complete, answers bool // answers: the server streams too
		unknown           bool
	}{
		"broken after all was sent": {replace, broken, true, false, true},
		"a restore that is broken": {
			ententev1.ClusterService_RestoreSnapshot_FullMethodName, broken, true, false, true,
		},
		"a deadline":              {replace, status.Error(codes.DeadlineExceeded, "late"), true, false, true},
		"broken while it is sent": {replace, broken, false, false, false},
		"an answer of the member": {
			replace, apierror.New(codes.Unavailable, apierror.NoLeader, "none"), true, false, false,
		},
		"a refusal":                  {replace, status.Error(codes.InvalidArgument, "no port"), true, false, false},
		"the end":                    {replace, io.EOF, true, false, false},
		"a lease, which is repeated": {lease, broken, true, true, false},
		"a stream of answers": {
			ententev1.ClusterService_SaveSnapshot_FullMethodName, broken, true, true, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			open := func(
				context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption,
			) (grpc.ClientStream, error) {
				return brokenStream{err: test.err}, nil
			}
			desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: test.answers}
			stream, err := wrapStream(t.Context(), desc, nil, test.method, open)
			require.NoError(t, err)
			require.NoError(t, stream.SendMsg(nil))
			if test.complete {
				require.NoError(t, stream.CloseSend())
			}
			err = stream.RecvMsg(nil)
			require.Equal(t, test.unknown, errors.Is(err, ErrUnknownOutcome))
			require.Equal(t, test.unknown, strings.HasSuffix(err.Error(), "so that whether the write was made is not "+
				"known: read the resource before trying again"))
		})
	}
}

// TestRetryAfter: a source waits for as long as an overloaded member requests, but no longer than it ever waits, and
// not together with all others.
func TestRetryAfter(t *testing.T) {
	plain := status.New(codes.ResourceExhausted, "too many calls")
	requested := func(d time.Duration) error {
		detailed, err := plain.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
		require.NoError(t, err)
		return detailed.Err()
	}
	for name, test := range map[string]struct {
		err    error
		after  time.Duration
		atMost time.Duration
	}{
		"nothing requested": {err: plain.Err()},
		"not of gRPC":       {err: errors.New("broken")},
		"a second":          {err: requested(time.Second), after: time.Second, atMost: time.Second},
		"wrapped": {
			err: fmt.Errorf("renew: %w", wrap(requested(time.Second))), after: time.Second, atMost: time.Second,
		},
		"a day":      {err: requested(24 * time.Hour), after: 24 * time.Hour, atMost: lastRetry},
		"before now": {err: requested(-time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.after, retryAfter(test.err))
			if e, ok := errors.AsType[*Error](wrap(test.err)); ok {
				require.Equal(t, test.after, e.RetryAfter())
			}
			waits := map[time.Duration]bool{}
			for range 64 {
				d := delay(test.err, newBackoff())
				require.GreaterOrEqual(t, d, test.atMost+firstRetry/2)
				require.LessOrEqual(t, d, test.atMost+firstRetry*3/2)
				waits[d] = true
			}
			require.Greater(t, len(waits), 1, "clients that were refused together come back together")
		})
	}
}
