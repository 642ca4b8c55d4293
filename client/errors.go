package client

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/internal/apierror"
)

// Kinds of errors, for errors.Is.
var (
	// ErrUnavailable means that no member could be reached, or that the member cannot serve the call at the moment. The
	// call can be repeated, unless it was a write: then see [ErrUnknownOutcome].
	ErrUnavailable = errors.New("unavailable")
	// ErrNoLeader means that the cluster has no leader that the member can reach. Nothing was written. Stale reads
	// work. An error that is ErrNoLeader is ErrUnavailable too.
	ErrNoLeader = errors.New("no leader")
	// ErrUnknownOutcome means that the write may or may not have been made: read before repeating it.
	ErrUnknownOutcome = errors.New("unknown outcome")
	// ErrDenied means that no role of the caller allows the call.
	ErrDenied = errors.New("permission denied")
	// ErrUnauthenticated means that the caller proved no identity.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrNotFound means that the resource does not exist, or that the caller may not see it.
	ErrNotFound = errors.New("not found")
	// ErrAlreadyExists means that the resource exists.
	ErrAlreadyExists = errors.New("already exists")
	// ErrConflict means that a concurrent change prevented the call: read again and repeat it.
	ErrConflict = errors.New("conflict")
	// ErrFailedPrecondition means that the state of the cluster does not allow the call.
	ErrFailedPrecondition = errors.New("failed precondition")
	// ErrInvalidArgument means that the request is malformed. [Error.Field] names the field, where one is at fault.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrExhausted means that a limit or a rate is exceeded.
	ErrExhausted = errors.New("exhausted")
	// ErrWatchRestart means that a watch missed changes: read again and watch from there.
	ErrWatchRestart = errors.New("watch must restart")
	// ErrUnimplemented means that the member does not serve the method; it runs another version.
	ErrUnimplemented = errors.New("unimplemented")
	// ErrBundleEndpoint means that the address is that of a bundle endpoint instead of a cluster port.
	ErrBundleEndpoint = errors.New("bundle endpoint")
)

// kinds maps the reasons of the API to the errors of this package.
var kinds = map[string][]error{
	apierror.Unavailable:        {ErrUnavailable},
	apierror.NoLeader:           {ErrNoLeader, ErrUnavailable},
	apierror.Behind:             {ErrUnavailable},
	apierror.UnknownOutcome:     {ErrUnknownOutcome},
	apierror.Denied:             {ErrDenied},
	apierror.Unauthenticated:    {ErrUnauthenticated},
	apierror.NotFound:           {ErrNotFound},
	apierror.AlreadyExists:      {ErrAlreadyExists},
	apierror.Conflict:           {ErrConflict},
	apierror.FailedPrecondition: {ErrFailedPrecondition},
	apierror.InvalidArgument:    {ErrInvalidArgument},
	apierror.Exhausted:          {ErrExhausted},
	apierror.WatchRestart:       {ErrWatchRestart},
	apierror.Unimplemented:      {ErrUnimplemented},
}

// Error is the error of a call. [errors.Is] compares it with the kinds of this package, and with context.Canceled and
// context.DeadlineExceeded.
type Error struct {
	status *status.Status
}

// Error returns the message of the member, one sentence for a person.
func (e *Error) Error() string { return e.status.Message() }

// GRPCStatus returns the gRPC status, with its details.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Reason returns the machine-readable reason, such as "NO_LEADER", or "" if the error is not one of the API.
func (e *Error) Reason() string { return apierror.Reason(e.status) }

// Field returns the path of the field of the request that is at fault, such as "domain.ca_ttl", or "".
func (e *Error) Field() string {
	for _, detail := range e.status.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 0 {
			return bad.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

// Is implements the interface that errors.Is uses.
func (e *Error) Is(target error) bool {
	switch e.status.Code() {
	case codes.Canceled:
		return target == context.Canceled
	case codes.DeadlineExceeded:
		return target == context.DeadlineExceeded
	default:
	}
	if target == ErrBundleEndpoint {
		return strings.Contains(e.status.Message(), bundleEndpoint)
	}
	for _, kind := range kinds[e.Reason()] {
		if target == kind {
			return true
		}
	}
	return false
}

// wrap turns an error of gRPC into an [*Error]. The end of a stream is not an error.
func wrap(err error) error {
	var wrapped *Error
	if err == nil || errors.Is(err, io.EOF) || errors.As(err, &wrapped) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	return &Error{status: s}
}

// transient reports whether an error can go away by itself.
func transient(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable,
		codes.DeadlineExceeded,
		codes.ResourceExhausted,
		codes.Unknown,
		codes.Internal,
		codes.Aborted:
		return true
	default:
		return false
	}
}

func wrapUnary(
	ctx context.Context, method string, request, response any, conn *grpc.ClientConn, call grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	return wrap(call(ctx, method, request, response, conn, options...))
}

func wrapStream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer,
	options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, options...)
	if err != nil {
		return nil, wrap(err)
	}
	return wrappedStream{stream}, nil
}

// wrappedStream is a stream whose errors are wrapped.
type wrappedStream struct{ grpc.ClientStream }

// SendMsg implements grpc.ClientStream.
func (s wrappedStream) SendMsg(m any) error { return wrap(s.ClientStream.SendMsg(m)) }

// RecvMsg implements grpc.ClientStream.
func (s wrappedStream) RecvMsg(m any) error { return wrap(s.ClientStream.RecvMsg(m)) }

// CloseSend implements grpc.ClientStream.
func (s wrappedStream) CloseSend() error { return wrap(s.ClientStream.CloseSend()) }
