package client

import (
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
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
	// ErrStarting means that the member was started and has not reached yet what it served before. Nothing follows from
	// it about any resource; use another member, or repeat the call. An error that is ErrStarting is ErrUnavailable
	// too.
	ErrStarting = errors.New("starting")
	// ErrUnknownOutcome means that the write may or may not have been made: read the resource before repeating it. A
	// call with a request id is repeated by the client for some time before it returns this error. The member reports
	// it, or the connection broke, the deadline passed or the context was canceled after the request had left. In the
	// latter cases the error is ErrUnavailable or the context's error too.
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
	// ErrEtagMismatch means that the object was changed since the caller read it: see [Error.Etags]. An error that is
	// ErrEtagMismatch is ErrConflict too.
	ErrEtagMismatch = errors.New("etag mismatch")
	// ErrFailedPrecondition means that the state of the cluster does not allow the call.
	ErrFailedPrecondition = errors.New("failed precondition")
	// ErrDeletionProtected means that the object is not deleted while its deletion_protection is set. An error that is
	// ErrDeletionProtected is ErrFailedPrecondition too.
	ErrDeletionProtected = errors.New("deletion protected")
	// ErrInvalidArgument means that the request is malformed. [Error.Field] names the field, where one is at fault.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrRequestReused means that the request id was used for another request. An error that is ErrRequestReused is
	// ErrInvalidArgument too.
	ErrRequestReused = errors.New("request id reused")
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
	apierror.Starting:           {ErrStarting, ErrUnavailable},
	apierror.UnknownOutcome:     {ErrUnknownOutcome},
	apierror.Denied:             {ErrDenied},
	apierror.Unauthenticated:    {ErrUnauthenticated},
	apierror.NotFound:           {ErrNotFound},
	apierror.AlreadyExists:      {ErrAlreadyExists},
	apierror.Conflict:           {ErrConflict},
	apierror.EtagMismatch:       {ErrEtagMismatch, ErrConflict},
	apierror.FailedPrecondition: {ErrFailedPrecondition},
	apierror.DeletionProtected:  {ErrDeletionProtected, ErrFailedPrecondition},
	apierror.InvalidArgument:    {ErrInvalidArgument},
	apierror.RequestReused:      {ErrRequestReused, ErrInvalidArgument},
	apierror.Exhausted:          {ErrExhausted},
	apierror.WatchRestart:       {ErrWatchRestart},
	apierror.Unimplemented:      {ErrUnimplemented},
}

// Error is the error of a call. [errors.Is] compares it with the kinds of this package, and with context.Canceled and
// context.DeadlineExceeded.
type Error struct {
	status *status.Status
	// unanswered means that a write was sent and no member answered it.
	unanswered bool
}

// Error returns the message of the member, one sentence for a person. For a write that no member answered it adds that
// the outcome is not known.
func (e *Error) Error() string {
	if e.unanswered {
		return e.status.Message() + "; " + unanswered
	}
	return e.status.Message()
}

const unanswered = "the request had left and no answer arrived, so that whether the write was made is not known: " +
	"read the resource before trying again"

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

// Etags returns the etag of the request and the present one of the object, if the error is [ErrEtagMismatch]. The
// present one is "0" if the object does not exist.
func (e *Error) Etags() (requested, current string) {
	metadata := apierror.Metadata(e.status)
	return metadata[apierror.RequestedEtag], metadata[apierror.CurrentEtag]
}

// RetryAfter returns how long the member requests to wait before the call is repeated, or 0 if it requests nothing. An
// overloaded member does. Sources and leases wait for that long by themselves.
func (e *Error) RetryAfter() time.Duration { return retryAfter(e) }

// retryAfter returns the wait that a member requests with an error, or 0.
func retryAfter(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return max(info.GetRetryDelay().AsDuration(), 0)
		}
	}
	return 0
}

// Is implements the interface that errors.Is uses.
func (e *Error) Is(target error) bool {
	if e.unanswered && target == ErrUnknownOutcome {
		return true
	}
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

// transient reports whether an error can go away by itself, so that the loops of this package repeat the call. A write
// of unknown outcome is the caller's to repeat.
func transient(err error) bool {
	if errors.Is(err, ErrUnknownOutcome) {
		return false
	}
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
	var reached peer.Peer
	options = append(slices.Clip(options), grpc.Peer(&reached))
	err := wrap(call(ctx, method, request, response, conn, options...))
	var failed *Error
	if reached.Addr != nil && writes(method) && errors.As(err, &failed) && !answered(failed.status) {
		failed.unanswered = true
	}
	return err
}

// readVerbs begin the names of the methods that change nothing, or nothing that repeating them changes.
var readVerbs = []string{"Get", "List", "Watch", "Compare", "Simulate", "Tail", "Save", "Issue"}

// writes reports whether a method changes the state of the cluster.
func writes(method string) bool {
	name := path.Base(method)
	return !slices.ContainsFunc(readVerbs, func(verb string) bool { return strings.HasPrefix(name, verb) })
}

// answered reports whether a status is that of a member. gRPC makes one itself if the call ends without an answer; it
// has no reason, which every error of the API has.
func answered(s *status.Status) bool {
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded:
		return false
	case codes.Unavailable, codes.Internal, codes.Unknown:
		return len(s.Details()) > 0
	default:
		return true
	}
}

func wrapStream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer,
	options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, options...)
	if err != nil {
		return nil, wrap(err)
	}
	return &wrappedStream{ClientStream: stream, writes: writes(method) && !desc.ServerStreams}, nil
}

// wrappedStream is a stream whose errors are wrapped.
type wrappedStream struct {
	grpc.ClientStream
	// writes means that the stream is one write, which a member makes once it has all of it, and then answers.
	writes bool
	// complete is set once all of it is sent.
	complete atomic.Bool
}

// SendMsg implements grpc.ClientStream.
func (s *wrappedStream) SendMsg(m any) error { return wrap(s.ClientStream.SendMsg(m)) }

// RecvMsg implements grpc.ClientStream.
func (s *wrappedStream) RecvMsg(m any) error {
	err := wrap(s.ClientStream.RecvMsg(m))
	var failed *Error
	if s.writes && s.complete.Load() && errors.As(err, &failed) && !answered(failed.status) {
		failed.unanswered = true
	}
	return err
}

// CloseSend implements grpc.ClientStream.
func (s *wrappedStream) CloseSend() error {
	s.complete.Store(true)
	return wrap(s.ClientStream.CloseSend())
}
