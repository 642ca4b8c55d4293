package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/apierror"
)

// Exit statuses, which docs/operating/errors.md describes.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitNotFound
	exitExists
	exitDenied
	exitNoLeader
	exitUnavailable
	exitUnknown
	exitPrecondition
)

// exitStatuses maps the kinds of errors of the client to exit statuses. The first that matches counts: an error without
// a leader is unavailable too. Every other error is exitFailed.
var exitStatuses = []struct {
	kind   error
	status int
}{
	{client.ErrUnknownOutcome, exitUnknown},
	{client.ErrInvalidArgument, exitUsage},
	{client.ErrNotFound, exitNotFound},
	{client.ErrAlreadyExists, exitExists},
	{client.ErrDenied, exitDenied},
	{client.ErrUnauthenticated, exitDenied},
	{client.ErrNoLeader, exitNoLeader},
	{client.ErrUnavailable, exitUnavailable},
	{client.ErrEtagMismatch, exitPrecondition},
	{client.ErrConflict, exitUnavailable},
	{client.ErrExhausted, exitUnavailable},
	{client.ErrWatchRestart, exitUnavailable},
	{context.DeadlineExceeded, exitUnavailable},
	{client.ErrFailedPrecondition, exitPrecondition},
}

// exitStatus returns the exit status for an error.
func exitStatus(err error) int {
	var silent Silent
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent) && silent.Status != 0:
		return silent.Status
	case errors.As(err, &usage):
		return exitUsage
	}
	for _, s := range exitStatuses {
		if errors.Is(err, s.kind) {
			return s.status
		}
	}
	return exitFailed
}

// reasons are the names of the exit statuses in errors that are not the API's.
var reasons = map[int]string{
	exitFailed: "FAILED", exitUsage: apierror.InvalidArgument, exitNotFound: apierror.NotFound,
	exitExists: apierror.AlreadyExists, exitDenied: apierror.Denied, exitNoLeader: apierror.NoLeader,
	exitUnavailable: apierror.Unavailable, exitUnknown: apierror.UnknownOutcome,
	exitPrecondition: apierror.FailedPrecondition,
}

// errorDocument is an error as JSON or YAML.
type errorDocument struct {
	Error errorFields `json:"error"`
}

type errorFields struct {
	// Reason is the reason of the API, or the one that goes with the exit status.
	Reason string `json:"reason"`
	// Message is for people. It is one sentence, or one a line.
	Message string `json:"message"`
	// Field is the field of the request that is at fault, if one is.
	Field  string `json:"field,omitempty"`
	Status int    `json:"exit_status"`
}

func newErrorDocument(err error, message string) errorDocument {
	out := errorFields{Message: message, Status: exitStatus(err)}
	var api *client.Error
	if errors.As(err, &api) {
		out.Reason, out.Field = api.Reason(), api.Field()
	}
	if out.Reason == "" || errors.Is(err, client.ErrUnknownOutcome) {
		out.Reason = reasons[out.Status]
	}
	return errorDocument{out}
}

// PreconditionError returns err as one that a person has to change something for. The exit status is that of
// ErrFailedPrecondition.
func PreconditionError(err error) error { return precondition{err} }

type precondition struct{ error }

// Is implements the interface that errors.Is uses.
func (precondition) Is(target error) bool { return target == client.ErrFailedPrecondition }

// NotFoundf returns an error for a resource that the command did not find. The exit status is that of ErrNotFound.
func NotFoundf(format string, args ...any) error { return notFound{fmt.Sprintf(format, args...)} }

type notFound struct{ message string }

func (e notFound) Error() string { return e.message }

// Is implements the interface that errors.Is uses.
func (notFound) Is(target error) bool { return target == client.ErrNotFound }
